//! Tests on a real engine; they skip aloud without one.
