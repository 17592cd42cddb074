//! `ssl-cluster` learns image features and labels without any human label.
//!
//! The loop of DeepCluster and SeLa, in ten lines:
//!
//! ```text
//! until the epochs are done:
//!     if labels are due:
//!         features  = the network's, of every image, in evaluation mode
//!         labels    = k-means (DeepCluster) or optimal transport (SeLa) on them
//!         write the labels
//!     for each batch of random views:
//!         predict the labels of its images
//!         step down the gradient of the cross-entropy
//! label every image once more with the final network
//! ```
//!
//! Modules, each of which uses only those below it:
//! - [`commands`]: what can be typed, and what each command does
//! - [`train`] the loop, [`run_dir`] what it leaves on disk, [`labels`] label formats, [`report`] the
//!   page for people, [`eval`] how good it is, [`matrix`] matrices in files, [`trained`] a run put
//!   together again, [`ui`] what the terminal sees
//! - [`method`]: DeepCluster, SeLa, rotation, context, ... behind one trait
//! - [`model`] networks, [`data`] images, [`cluster`] clustering
//! - [`comm`], [`tensors`], [`picture`], [`config`], [`device`], [`directories`], [`random`], [`monitor`], [`profile`], [`record`], [`error`]

#![deny(unsafe_code)]

pub mod cluster;
pub mod comm;
pub mod commands;
pub mod config;
pub mod data;
pub mod device;
pub mod directories;
pub mod error;
pub mod eval;
pub mod labels;
pub mod matrix;
pub mod method;
pub mod model;
pub mod monitor;
pub mod picture;
pub mod profile;
pub mod random;
pub mod record;
pub mod report;
pub mod run_dir;
pub mod tensors;
pub mod train;
pub mod trained;
pub mod ui;

pub use commands::main;
