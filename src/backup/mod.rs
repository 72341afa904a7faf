//! Backup archives in a directory: their names, chains of a full and its differentials, verification.
