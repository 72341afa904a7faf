//! Arguments and output of each command.
