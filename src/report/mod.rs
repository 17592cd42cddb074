//! A run as one self-contained HTML page, and as one contact sheet.
//!
//! [`render`] turns a [`Report`] into HTML that needs nothing beside itself: charts are
//! inlined SVG, images are data URIs, and the page's own content security policy forbids
//! it to load anything. [`contact_sheet`] paints the same clusters into a single picture.
//! Both are functions of their arguments alone: no disk, no network, no tensors.

mod axis;
mod charts;
mod contact;
mod format;
mod page;
mod thumbs;

pub use contact::contact_sheet;
pub use page::render;

use image::RgbImage;

use crate::picture::Panel;

/// Most clusters that a report should hold. Choosing them (the largest first) and saying
/// so in a [`Note`] is left to the caller; [`render`] shows what it is given.
pub const MAX_CLUSTERS: usize = 200;

/// Thumbnails shown for each cluster; those after them are ignored.
pub const MAX_THUMBS: usize = 16;

/// Everything that the page says.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The run's name, such as `demo`.
    pub title: String,
    /// The method's name, such as `DeepCluster`.
    pub method: String,
    /// What the method does, in one sentence.
    pub method_help: String,
    /// Where it was published. An `https://` address in it becomes a link.
    pub paper: String,
    /// The headline numbers.
    pub figures: Vec<Figure>,
    /// What the reader should know, in whole sentences.
    pub notes: Vec<Note>,
    /// One chart each; those without a finite point are left out.
    pub curves: Vec<Curve>,
    /// Images in each cluster; the index is the label.
    pub sizes: Vec<usize>,
    /// What the method sees and predicts, a row of tiles for each image or so.
    pub panels: Vec<Panel>,
    /// The clusters to show, in any order.
    pub clusters: Vec<Sheet>,
    /// The run's options, as TOML.
    pub config_toml: String,
    /// The command line that made the run.
    pub command: String,
    /// The program's version.
    pub version: String,
}

/// A headline number.
#[derive(Debug, Clone, Default)]
pub struct Figure {
    /// What it is, such as `kNN accuracy`.
    pub label: String,
    /// The number, ready to print, such as `83.4 %`.
    pub value: String,
    /// What helps to read it, such as `chance is 10 %`; may be empty.
    pub hint: String,
}

/// A sentence for the reader.
#[derive(Debug, Clone)]
pub struct Note {
    /// The sentence.
    pub text: String,
    /// Whether something wants attention.
    pub warning: bool,
}

impl Note {
    /// A sentence about how things stand.
    pub fn info(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            text,
            warning: false,
        }
    }

    /// A sentence about something that wants attention.
    pub fn warning(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            text,
            warning: true,
        }
    }
}

/// A line chart over epochs.
#[derive(Debug, Clone, Default)]
pub struct Curve {
    /// The heading, such as `Loss`.
    pub title: String,
    /// The quantity and its unit, such as `cross-entropy` or `images / s`.
    pub unit: String,
    /// The lines.
    pub series: Vec<Series>,
}

/// One line of a [`Curve`].
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// The name in the legend; may be empty where the line is alone.
    pub name: String,
    /// Epoch and value, in order. Points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// One cluster.
#[derive(Debug, Clone, Default)]
pub struct Sheet {
    /// Its number.
    pub label: usize,
    /// Images in it.
    pub size: usize,
    /// Mean of the scores of its images.
    pub mean_score: Option<f64>,
    /// Its most frequent true classes, the first leading; empty where none are known.
    pub classes: Vec<ClassShare>,
    /// Some of its images, the most typical first.
    pub thumbs: Vec<Thumb>,
}

/// How much of a cluster one true class makes up.
#[derive(Debug, Clone, Default)]
pub struct ClassShare {
    /// The class, such as `sneaker`.
    pub name: String,
    /// Its share of the cluster, from 0 to 1.
    pub share: f64,
}

/// One image of a cluster. An image without pixels is not shown.
#[derive(Debug, Clone, Default)]
pub struct Thumb {
    /// Where the image lies, relative to the data root.
    pub path: String,
    /// What is known of it, such as `score 0.93`; may be empty.
    pub caption: String,
    /// Its pixels; larger ones are scaled down for the page.
    pub image: RgbImage,
}

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A tile of a panel could not be encoded.
    #[error("cannot encode what the method sees")]
    Panel(#[source] image::ImageError),
    /// A thumbnail could not be encoded.
    #[error("cannot encode the thumbnail of '{path}'")]
    Thumb {
        /// The image's path.
        path: String,
        /// What the encoder said.
        source: image::ImageError,
    },
    /// A chart could not be drawn.
    #[error("cannot draw the chart '{title}': {reason}")]
    Chart {
        /// The chart's heading.
        title: String,
        /// What the drawing library said.
        reason: String,
    },
    /// The page could not be put together.
    #[error("cannot fill in the report's page")]
    Page(#[from] askama::Error),
}
