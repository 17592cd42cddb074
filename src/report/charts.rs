//! Line and bar charts as inline SVG.
//!
//! plotters draws in fixed colours. Here a colour stands for a role and is then turned
//! into a CSS class, so that the page's light and dark palettes reach into the charts.

use std::error::Error;

use plotters::prelude::*;

use super::axis::Axis;
use super::format::{count, short};
use super::{Curve, ReportError, Series};

/// plotters has whole-number coordinates: lines would be jagged at the size shown, so
/// everything is drawn this much larger and the browser scales it down.
const SCALE: u32 = 4;
const WIDTH: u32 = 330 * SCALE;
const HEIGHT: u32 = 190 * SCALE;
/// plotters divides by 1.24: 12 px in a chart 330 px wide.
const FONT: u32 = 15 * SCALE;

const GRID: RGBColor = RGBColor(1, 0, 0);
const TEXT: RGBColor = RGBColor(2, 0, 0);
const MEAN: RGBColor = RGBColor(3, 0, 0);
/// Colours of lines and bars; a fifth line takes the first colour again.
const LINES: [RGBColor; 4] = [
    RGBColor(4, 0, 0),
    RGBColor(5, 0, 0),
    RGBColor(6, 0, 0),
    RGBColor(7, 0, 0),
];
const ROLES: [(RGBColor, &str); 7] = [
    (GRID, "grid"),
    (TEXT, "text"),
    (MEAN, "mean"),
    (LINES[0], "l1"),
    (LINES[1], "l2"),
    (LINES[2], "l3"),
    (LINES[3], "l4"),
];

/// Values beyond this are as good as infinite, and would overflow the axis arithmetic.
const LARGEST: f64 = 1e100;
/// More points than a chart of this width can show only make the file larger.
const MOST_POINTS: usize = 800;
/// More bars than that are drawn as the means of neighbours.
const MOST_BARS: usize = 160;

/// A chart and the words around it.
pub(super) struct Chart {
    pub title: String,
    pub unit: String,
    /// What the picture shows, for those who cannot see it.
    pub summary: String,
    pub legend: Vec<Legend>,
    /// Trusted markup: made of numbers and fixed words alone.
    pub svg: String,
}

/// One entry under a chart's heading.
pub(super) struct Legend {
    pub class: &'static str,
    pub name: String,
    pub value: String,
}

/// The chart of a curve, or none where no point can be shown.
pub(super) fn line_chart(curve: &Curve) -> Result<Option<Chart>, ReportError> {
    let lines: Vec<Line> = curve
        .series
        .iter()
        .zip((0..).map(role))
        .filter_map(Line::new)
        .collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let points = || lines.iter().flat_map(|line| &line.points);
    let x = Axis::epochs(points().map(|p| p.0));
    let y = Axis::values(points().map(|p| p.1));
    let svg = draw(x, y, "epoch", |chart| {
        for line in &lines {
            if line.points.len() > 1 {
                let stroke = line.colour.stroke_width(2 * SCALE);
                chart.draw_series(LineSeries::new(line.points.iter().copied(), stroke))?;
            }
            // The eye looks for the end of a line; of a single point it is all there is.
            chart.draw_series([Circle::new(line.last, 3 * SCALE, line.colour.filled())])?;
        }
        Ok(())
    });
    Ok(Some(Chart {
        title: curve.title.clone(),
        unit: curve.unit.clone(),
        summary: lines
            .iter()
            .map(|l| l.spoken(&curve.title))
            .collect::<Vec<_>>()
            .join("; "),
        legend: lines.iter().map(Line::legend).collect(),
        svg: svg.map_err(|e| failed(&curve.title, e.as_ref()))?,
    }))
}

/// The clusters' sizes, largest first, or none where all are empty.
pub(super) fn size_chart(sizes: &[usize]) -> Result<Option<Chart>, ReportError> {
    let mut sorted = sizes.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let (Some(&largest), Some(&smallest)) = (sorted.first(), sorted.last()) else {
        return Ok(None);
    };
    if largest == 0 {
        return Ok(None);
    }
    let n = sorted.len();
    let mean_of =
        |range: &[usize]| range.iter().map(|&s| s as f64).sum::<f64>() / range.len() as f64;
    let mean = mean_of(&sorted);
    let bars = n.min(MOST_BARS);
    let gap = if n <= MOST_BARS / 2 { 0.1 } else { 0.0 };

    let title = "Cluster sizes";
    let svg = draw(
        Axis::ranks(n),
        Axis::counts(largest as f64),
        "cluster, by size",
        |chart| {
            chart.draw_series((0..bars).map(|bar| {
                let (from, to) = (bar * n / bars, (bar + 1) * n / bars);
                let corners = [
                    (from as f64 + gap, mean_of(&sorted[from..to])),
                    (to as f64 - gap, 0.0),
                ];
                Rectangle::new(corners, LINES[0].filled())
            }))?;
            chart.draw_series(LineSeries::new(
                [(0.0, mean), (n as f64, mean)],
                MEAN.stroke_width(SCALE),
            ))?;
            Ok(())
        },
    );
    let entry = |class, name: &str, value| Legend {
        class,
        name: name.to_owned(),
        value: count(value),
    };
    Ok(Some(Chart {
        title: title.to_owned(),
        unit: "images".to_owned(),
        summary: format!(
            "{n} clusters, the largest of {largest} images, the smallest of {smallest}"
        ),
        legend: vec![
            entry("none", "largest", largest),
            entry("none", "smallest", smallest),
            entry("mean", "mean", mean.round() as usize),
        ],
        svg: svg.map_err(|e| failed(title, e.as_ref()))?,
    }))
}

/// One line with what can be drawn of it.
struct Line<'a> {
    name: &'a str,
    colour: RGBColor,
    class: &'static str,
    points: Vec<(f64, f64)>,
    last: (f64, f64),
}

impl<'a> Line<'a> {
    fn new((series, (colour, class)): (&'a Series, (RGBColor, &'static str))) -> Option<Self> {
        let usable = |p: &(f64, f64)| p.0.abs() < LARGEST && p.1.abs() < LARGEST;
        let usable: Vec<_> = series.points.iter().copied().filter(usable).collect();
        let last = *usable.last()?;
        let stride = usable.len().div_ceil(MOST_POINTS);
        let mut points: Vec<_> = usable.into_iter().step_by(stride).collect();
        if stride > 1 {
            points.push(last);
        }
        Some(Self {
            name: &series.name,
            colour,
            class,
            points,
            last,
        })
    }

    fn legend(&self) -> Legend {
        let name = if self.name.is_empty() {
            "latest"
        } else {
            self.name
        };
        Legend {
            class: self.class,
            name: name.to_owned(),
            value: short(self.last.1),
        }
    }

    fn spoken(&self, title: &str) -> String {
        let name = if self.name.is_empty() {
            title
        } else {
            self.name
        };
        let first = self.points.first().unwrap_or(&self.last);
        format!(
            "{name}: {} at epoch {}, {} at epoch {}",
            short(first.1),
            first.0,
            short(self.last.1),
            self.last.0
        )
    }
}

fn role(line: usize) -> (RGBColor, &'static str) {
    let colour = LINES[line % LINES.len()];
    let class = ROLES.iter().find(|r| r.0 == colour).map_or("l1", |r| r.1);
    (colour, class)
}

fn failed(title: &str, reason: &dyn Error) -> ReportError {
    ReportError::Chart {
        title: title.to_owned(),
        reason: reason.to_string(),
    }
}

type Plane<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

/// Draws axes, then what `content` adds to them.
fn draw<F>(x: Axis, y: Axis, x_name: &str, content: F) -> Result<String, Box<dyn Error>>
where
    F: FnOnce(&mut Plane) -> Result<(), Box<dyn Error>>,
{
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        let letter = 7 * SCALE;
        let mut chart = ChartBuilder::on(&area)
            .margin_top(8 * SCALE)
            .margin_right(14 * SCALE)
            .x_label_area_size(36 * SCALE)
            .y_label_area_size(y.label_width() as u32 * letter + 12 * SCALE)
            .build_cartesian_2d(x, y)?;
        let label = ("sans-serif", FONT).into_font().color(&TEXT);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .axis_style(TRANSPARENT)
            .bold_line_style(GRID.stroke_width(SCALE))
            .label_style(label.clone())
            .axis_desc_style(label)
            .set_all_tick_mark_size(3 * SCALE)
            .x_desc(x_name)
            .draw()?;
        content(&mut chart)?;
        area.present()?;
    }
    Ok(styled(&svg))
}

/// The drawing with classes for colours, the page's font, and the width of its place.
fn styled(svg: &str) -> String {
    let start = svg
        .find("<svg")
        .and_then(|i| svg[i..].find('>').map(|j| i + j + 1));
    let mut body = svg[start.unwrap_or(0)..].replace(r#" opacity="1""#, "");
    body = body.replace(r#" font-family="sans-serif""#, "");
    for (RGBColor(r, g, b), class) in ROLES {
        let hex = format!("#{r:02X}{g:02X}{b:02X}");
        body = body.replace(
            &format!(r#"fill="{hex}""#),
            &format!(r#"class="fill {class}""#),
        );
        body = body.replace(
            &format!(r#"stroke="{hex}""#),
            &format!(r#"class="line {class}""#),
        );
    }
    format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true">{body}"#)
}
