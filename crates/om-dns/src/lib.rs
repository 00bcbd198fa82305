//! Answers DNS from an immutable snapshot of a zone. Does not know where the zone comes from.
