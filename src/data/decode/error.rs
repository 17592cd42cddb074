//! Why an image could not be read.

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Image(#[from] image::ImageError),
    #[error("{0}")]
    Jpeg(#[from] libjpeg_turbo_rs::JpegError),
    #[error("the file is larger than any image: {} MB", .0 >> 20)]
    TooLong(u64),
    #[error("it is no regular file")]
    NoFile,
    #[error("its pixels would take {} MB", .0 >> 20)]
    TooLarge(u64),
    #[error("the file is empty")]
    NoBytes,
    #[error("it has no pixels")]
    Empty,
    #[error("cannot resize: {0}")]
    Resize(String),
    #[error("the decoder failed on it")]
    Panic,
}
