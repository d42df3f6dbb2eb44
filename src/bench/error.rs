//! Why a run cannot be made, in words that say what to do.

/// Why there is no result.
#[derive(Debug)]
pub enum Error {
    /// An option is missing or does not fit the others.
    Usage(String),
    /// The server could not be reached, or refused what the run needs.
    Server(String),
    /// This machine did not let us: sockets, threads, files.
    Local(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Usage(text) | Self::Server(text) | Self::Local(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Error {}
