//! What is installed on a host: dpkg's database, files, services.
