//! How good features and labels are, where folders tell the classes.

pub mod knn;
