//! What of the git gate is of use to a fuzzer: the reader of the one message that an agent speaks to
//! the gate itself. All else that it sends goes to git.

pub mod request;
