//! Opt-in tests of what others release: `BOTTLE_RUN_CANARIES=1`.
