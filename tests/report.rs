//! The report as a reader meets it: complete in itself, safe, and never broken by odd data.

use image::{Rgb, RgbImage};
use ssl_cluster::picture::{Panel, Tile};
use ssl_cluster::report::{
    ClassShare, Curve, Figure, MAX_THUMBS, Note, Report, Series, Sheet, Thumb, contact_sheet,
    render,
};

/// Everything between the page's own style and its script: what depends on the data.
fn body(html: &str) -> &str {
    let start = html.find("<body>").expect("the page has a body");
    let end = html.find("<script>").unwrap_or(html.len());
    &html[start..end]
}

fn page(report: &Report) -> String {
    let html = render(report).expect("the report can be rendered");
    assert!(html.starts_with("<!DOCTYPE html>") && html.trim_end().ends_with("</html>"));
    html
}

fn thumb(path: &str, width: u32, height: u32) -> Thumb {
    let image = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, (x ^ y) as u8]));
    Thumb {
        path: path.to_owned(),
        caption: "score 0.93".to_owned(),
        image,
    }
}

fn sheet(label: usize, size: usize) -> Sheet {
    let thumbs = (0..3)
        .map(|i| thumb(&format!("{label}/{i}.png"), 28, 28))
        .collect();
    let classes = vec![ClassShare {
        name: "bag".to_owned(),
        share: 0.9,
    }];
    Sheet {
        label,
        size,
        mean_score: Some(0.8),
        classes,
        thumbs,
    }
}

fn curve(title: &str, points: &[(f64, f64)]) -> Curve {
    let series = vec![Series {
        name: "training".to_owned(),
        points: points.to_vec(),
    }];
    Curve {
        title: title.to_owned(),
        unit: "nats".to_owned(),
        series,
    }
}

fn tile(caption: &str, answer: Option<bool>) -> Tile {
    Tile {
        image: thumb("", 28, 28).image,
        caption: caption.to_owned(),
        answer,
    }
}

fn full() -> Report {
    let figure = |label: &str| Figure {
        label: label.to_owned(),
        value: "83.4 %".to_owned(),
        hint: "chance is 10 %".to_owned(),
    };
    Report {
        title: "demo".to_owned(),
        method: "DeepCluster".to_owned(),
        method_help: "clusters, then predicts the clusters".to_owned(),
        paper: "Caron et al. 2018, https://arxiv.org/abs/1807.05520".to_owned(),
        figures: vec![figure("kNN accuracy"), figure("linear probe")],
        notes: vec![
            Note::info("It went well."),
            Note::warning("Two files were skipped."),
        ],
        curves: vec![curve("Loss", &[(1.0, 2.3), (2.0, 1.9), (3.0, 1.7)])],
        sizes: vec![10, 1200, 30],
        panels: vec![Panel(vec![
            tile("turned 90", Some(true)),
            tile("turned 180", Some(false)),
            tile("as it is", None),
        ])],
        clusters: vec![sheet(0, 10), sheet(1, 1200), sheet(2, 30)],
        config_toml: "epochs = 3\n".to_owned(),
        command: "ssl-cluster train photos".to_owned(),
        version: "0.1.0".to_owned(),
    }
}

#[test]
fn all_parts_are_there_largest_cluster_first() {
    let html = page(&full());
    let text = [
        "demo · ssl-cluster",
        "83.4 %",
        "It went well.",
        "Two files were skipped.",
    ];
    let more = [
        "1,200",
        "epochs = 3",
        "ssl-cluster train photos",
        "score 0.93",
        "mean score 0.80",
    ];
    for part in text.into_iter().chain(more) {
        assert!(html.contains(part), "'{part}' is missing");
    }
    let order: Vec<usize> = (0..3)
        .filter_map(|i| html.find(&format!("id=\"cluster-{i}\"")))
        .collect();
    assert!(order.len() == 3 && order[1] < order[2] && order[2] < order[0]);
    assert_eq!(html.matches("<article").count(), 3);
    assert_eq!(html.matches("<svg").count(), 2);
}

#[test]
fn what_the_method_sees_is_shown_with_its_answers() {
    let html = page(&full());
    let seen = &html[html.find("What the method sees").unwrap()..];
    let place = |text: &str| seen.find(text).unwrap_or_else(|| panic!("no '{text}'"));
    assert!(place("turned 90") < place("turned 180") && place("turned 180") < place("as it is"));
    let tiles: Vec<&str> = seen.split("<figure").skip(1).take(3).collect();
    assert!(tiles[0].starts_with(" class=\"right\"") && tiles[1].starts_with(" class=\"wrong\""));
    assert!(tiles[2].starts_with('>'));
    let none = Report {
        panels: Vec::new(),
        ..full()
    };
    assert!(!page(&none).contains("What the method sees"));
}

#[test]
fn text_is_escaped_everywhere() {
    let evil = r#"</pre><script>alert("1")</script>'" onerror='x' 猫&.png"#.to_owned();
    let mut report = full();
    report.title = evil.clone();
    report.method = evil.clone();
    report.method_help = evil.clone();
    report.paper = format!("{evil} https://example.org/\"><script>");
    report.figures[0] = Figure {
        label: evil.clone(),
        value: evil.clone(),
        hint: evil.clone(),
    };
    report.notes = vec![Note::warning(evil.clone())];
    report.curves[0].title = evil.clone();
    report.curves[0].unit = evil.clone();
    report.curves[0].series[0].name = evil.clone();
    report.clusters[0].classes[0].name = evil.clone();
    report.clusters[0].thumbs[0].path = evil.clone();
    report.clusters[0].thumbs[0].caption = evil.clone();
    report.panels[0].0[0].caption = evil.clone();
    report.config_toml = evil.clone();
    report.command = evil.clone();
    report.version = evil;
    let html = page(&report);
    assert_eq!(
        html.matches("<script").count(),
        1,
        "only the page's own script"
    );
    assert!(!body(&html).contains("alert(\""));
    assert!(!html.contains("\" onerror") && !html.contains("' onerror"));
    assert!(html.contains("猫&#38;.png"));
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    let html = page(&full());
    for attribute in ["src=\"", "href=\"", "url("] {
        for value in html.split(attribute).skip(1) {
            let own = value.starts_with("data:") || value.starts_with('#');
            let paper = value.starts_with("https://arxiv.org/abs/1807.05520\"");
            assert!(own || paper, "{attribute}{}", &value[..value.len().min(60)]);
        }
    }
    assert!(!html.contains("<link rel=\"stylesheet") && !html.contains("@import"));
    assert!(html.contains("Content-Security-Policy"));
}

#[test]
fn only_https_addresses_become_links() {
    let mut report = full();
    for paper in ["javascript:alert(1)", "http://example.org", "a talk", ""] {
        report.paper = paper.to_owned();
        assert!(!page(&report).contains("<a "), "{paper}");
    }
}

#[test]
fn charts_need_a_finite_point() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let charts = |points: &[(f64, f64)]| {
        let curves = vec![curve("Loss", points)];
        let html = page(&Report {
            curves,
            ..Report::default()
        });
        assert!(!html.contains("NaN") && !html.contains("inf<"));
        html
    };
    assert!(!charts(&[]).contains("<svg"));
    assert!(!charts(&[(1.0, nan), (nan, 1.0), (2.0, inf), (-inf, 0.0)]).contains("<svg"));
    assert!(
        charts(&[(1.0, 2.5)]).contains("<circle"),
        "one point is a dot"
    );
    assert!(
        !charts(&[(1.0, 2.5)]).contains("line l1"),
        "one point is no line"
    );
    let gap = charts(&[(1.0, 3.0), (2.0, nan), (3.0, 1.0)]);
    assert_eq!(gap, charts(&[(1.0, 3.0), (3.0, 1.0)]), "a gap is left out");
    for odd in [
        [(0.0, 0.0), (0.0, 0.0)],
        [(1.0, 1e99), (2.0, -1e99)],
        [(1.0, 1e-300), (2.0, 0.0)],
    ] {
        assert!(charts(&odd).contains("<svg"));
    }
}

#[test]
fn long_curves_and_many_clusters_stay_small() {
    let points: Vec<_> = (0..100_000)
        .map(|i| (f64::from(i), f64::from(i % 7)))
        .collect();
    let report = Report {
        curves: vec![curve("Loss", &points)],
        sizes: (0..10_000).collect(),
        ..Report::default()
    };
    assert!(page(&report).len() < 60_000);
}

#[test]
fn empty_clusters_have_no_size_chart() {
    let sizes = |sizes: Vec<usize>| {
        page(&Report {
            sizes,
            ..Report::default()
        })
    };
    assert!(!sizes(vec![0, 0, 0]).contains("<svg"));
    assert!(sizes(vec![0, 1]).contains("<svg"));
}

#[test]
fn an_empty_report_is_a_page() {
    let html = page(&Report::default());
    assert!(html.contains("Untitled run") && html.contains("no clusters"));
    assert!(!html.contains("<svg") && !html.contains("<script") && !html.contains("<img"));
}

#[test]
fn odd_clusters_are_shown() {
    let nothing = Sheet {
        label: 7,
        ..Sheet::default()
    };
    let mut odd = sheet(3, 1);
    odd.mean_score = Some(f64::NAN);
    odd.thumbs = vec![
        thumb("one.png", 1, 1),
        thumb("wide.png", 900, 2),
        thumb("none.png", 0, 5),
    ];
    let html = page(&Report {
        clusters: vec![nothing, odd],
        ..Report::default()
    });
    assert!(html.contains("one.png") && html.contains("wide.png") && !html.contains("none.png"));
    assert!(!html.contains("NaN") && html.contains("</b> image ·"));

    let mut many = sheet(1, 50);
    many.thumbs = (0..40).map(|i| thumb(&format!("{i}.png"), 8, 8)).collect();
    let html = page(&Report {
        clusters: vec![many],
        ..Report::default()
    });
    assert_eq!(html.matches("<img").count(), MAX_THUMBS);
}

#[test]
fn a_contact_sheet_has_a_row_for_each_cluster() {
    let size = |n: usize, columns, cell| {
        let sheets: Vec<Sheet> = (0..n).map(|i| sheet(i, i)).collect();
        contact_sheet(&sheets, columns, cell).dimensions()
    };
    let (width, one) = size(1, 4, 56);
    let (_, three) = size(3, 4, 56);
    let pitch = (three - one) / 2;
    assert!((56..64).contains(&pitch));
    assert_eq!(size(1, 5, 56), (width + pitch, one));
    assert!(size(0, 4, 56).1 > 0, "no clusters still make a picture");
    assert!(size(2, 0, 0).0 > 0 && size(2, usize::MAX, u32::MAX).0 < 40_000);
}

#[test]
fn a_contact_sheet_shows_the_images() {
    let red = RgbImage::from_pixel(1, 1, Rgb([255, 0, 0]));
    let thumbs = vec![
        Thumb {
            image: red,
            ..Thumb::default()
        },
        thumb("none.png", 0, 0),
    ];
    let clusters = [Sheet {
        label: usize::MAX,
        size: usize::MAX,
        thumbs,
        ..Sheet::default()
    }];
    let picture = contact_sheet(&clusters, 2, 32);
    let red = picture.pixels().filter(|p| p.0 == [255, 0, 0]).count();
    assert_eq!(red, 32 * 32);
}
