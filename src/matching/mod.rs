//! The delta engine: cutting, fingerprints, the map of a full backup, fine comparison.
