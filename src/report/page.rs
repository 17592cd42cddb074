//! The page: a report's data in the words and numbers that the template prints.

use std::cmp::Reverse;

use askama::Template;

use super::charts::{Chart, line_chart, size_chart};
use super::format::{count, percent};
use super::thumbs::{TINY, data_uri, has_pixels, side};
use super::{MAX_THUMBS, Report, ReportError, Sheet, Thumb};
use crate::picture::{Panel, Tile};

/// Side at which thumbnails of photographs are shown, in CSS pixels.
const PHOTO: u32 = 72;
/// Up to this many thumbnails are stored at twice that side, for dense screens; more of
/// them at a third above it, so that the file stays within some ten megabytes.
const MANY: usize = 800;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    report: &'a Report,
    paper: Paper<'a>,
    charts: Vec<Chart>,
    panels: Vec<Vec<Seen<'a>>>,
    cards: Vec<Card<'a>>,
    /// Side of a thumbnail's place, in CSS pixels.
    cell: u32,
    has_classes: bool,
    has_scores: bool,
}

/// A tile of a panel.
struct Seen<'a> {
    uri: String,
    caption: &'a str,
    /// Of the style sheet: whether a prediction is right.
    class: &'static str,
    tiny: bool,
}

/// A reference and its address.
struct Paper<'a> {
    text: String,
    url: Option<&'a str>,
}

/// A cluster as it is printed.
struct Card<'a> {
    sheet: &'a Sheet,
    size: String,
    share: String,
    /// Length of the bar, in per cent of the largest cluster's.
    bar: String,
    score: Option<String>,
    /// What the page's script sorts by.
    score_key: f64,
    classes: Vec<(&'a str, String)>,
    pictures: Vec<Picture>,
}

struct Picture {
    uri: String,
    text: String,
    width: u32,
    height: u32,
    tiny: bool,
}

/// The report as one HTML page that needs nothing beside itself.
///
/// Clusters come out largest first. All text is escaped; only an `https://` address in
/// [`Report::paper`] becomes a link.
pub fn render(report: &Report) -> Result<String, ReportError> {
    let mut charts = Vec::new();
    for curve in &report.curves {
        charts.extend(line_chart(curve)?);
    }
    charts.extend(size_chart(&report.sizes)?);

    let cell = cell_side(&report.clusters);
    let cards = cards(report)?;
    let page = Page {
        report,
        paper: Paper::new(&report.paper),
        charts,
        panels: panels(&report.panels)?,
        cell,
        has_classes: cards.iter().any(|c| !c.classes.is_empty()),
        has_scores: cards.iter().any(|c| c.score.is_some()),
        cards,
    };
    Ok(page.render()?)
}

fn panels<'a>(panels: &'a [Panel]) -> Result<Vec<Vec<Seen<'a>>>, ReportError> {
    let seen = |tile: &'a Tile| -> Result<Seen<'a>, ReportError> {
        let Tile {
            image,
            caption,
            answer,
        } = tile;
        Ok(Seen {
            uri: data_uri(image, 2 * PHOTO).map_err(ReportError::Panel)?,
            caption,
            class: match answer {
                None => "",
                Some(true) => "right",
                Some(false) => "wrong",
            },
            tiny: side(image) <= TINY,
        })
    };
    let rows = panels.iter().map(|Panel(tiles)| {
        let tiles = tiles.iter().filter(|tile| has_pixels(&tile.image));
        tiles.map(seen).collect()
    });
    rows.collect()
}

fn cards(report: &Report) -> Result<Vec<Card<'_>>, ReportError> {
    let mut sheets: Vec<&Sheet> = report.clusters.iter().collect();
    sheets.sort_by_key(|s| (Reverse(s.size), s.label));
    let shown: usize = sheets.iter().map(|s| s.size).sum();
    let total = report.sizes.iter().sum::<usize>().max(shown);
    let largest = sheets.first().map_or(0, |s| s.size);
    let thumbs: usize = sheets.iter().map(|s| s.thumbs.len().min(MAX_THUMBS)).sum();
    let most = if thumbs <= MANY {
        2 * PHOTO
    } else {
        PHOTO + PHOTO / 3
    };
    sheets
        .into_iter()
        .map(|sheet| Card::new(sheet, total, largest, most))
        .collect()
}

/// Tiny images are enlarged by a whole factor, to about [`TINY`]; all others share [`PHOTO`].
fn cell_side(clusters: &[Sheet]) -> u32 {
    let sides = clusters
        .iter()
        .flat_map(|c| &c.thumbs)
        .map(|t| side(&t.image));
    match sides.max().unwrap_or(0) {
        largest @ 1..=TINY => (TINY + largest / 2) / largest * largest,
        _ => PHOTO,
    }
}

impl<'a> Paper<'a> {
    fn new(paper: &'a str) -> Self {
        let is_url = |word: &&str| word.starts_with("https://");
        let url = paper.split_whitespace().find(is_url);
        let text: Vec<&str> = paper
            .split_whitespace()
            .filter(|w| Some(*w) != url)
            .collect();
        let text = text.join(" ");
        let text = text.trim_end_matches([',', ':', ';']);
        let bare = url.map_or("", |u| u.trim_start_matches("https://"));
        Self {
            text: if text.is_empty() { bare } else { text }.to_owned(),
            url,
        }
    }
}

impl<'a> Card<'a> {
    fn new(sheet: &'a Sheet, total: usize, largest: usize, most: u32) -> Result<Self, ReportError> {
        let part = |of: usize| sheet.size as f64 / of.max(1) as f64;
        let score = sheet.mean_score.filter(|s| s.is_finite());
        let thumbs = sheet
            .thumbs
            .iter()
            .take(MAX_THUMBS)
            .filter(|t| has_pixels(&t.image));
        let classes = sheet.classes.iter().filter(|c| c.share > 0.0);
        Ok(Self {
            sheet,
            size: count(sheet.size),
            share: percent(part(total)),
            bar: format!("{:.1}", 100.0 * part(largest)),
            score: score.map(|s| format!("{s:.2}")),
            // A cluster without a score comes after all that have one.
            score_key: score.unwrap_or(-1e9),
            classes: classes
                .map(|c| (c.name.as_str(), percent(c.share)))
                .collect(),
            pictures: thumbs
                .map(|t| Picture::new(t, most))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl Picture {
    fn new(thumb: &Thumb, most: u32) -> Result<Self, ReportError> {
        let uri = data_uri(&thumb.image, most).map_err(|source| ReportError::Thumb {
            path: thumb.path.clone(),
            source,
        })?;
        let Thumb {
            path,
            caption,
            image,
        } = thumb;
        let text = if caption.is_empty() {
            path.clone()
        } else {
            format!("{path}, {caption}")
        };
        let (width, height) = image.dimensions();
        Ok(Self {
            uri,
            text,
            width,
            height,
            tiny: side(image) <= TINY,
        })
    }
}
