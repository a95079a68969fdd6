//! TLS of every port, by rustls: certificates from PEM files that are read again when they change, and a
//! private authority for clusters that have none.

mod authority;
mod client;
mod error;
mod pem;
mod server;

pub use authority::{Made, make_certificates};
pub use client::{ClientFiles, ClientStream, connect};
pub use error::Error;
pub use server::{ServerFiles, ServerStream, ServerTls};
