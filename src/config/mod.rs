//! The configuration file, validated.
