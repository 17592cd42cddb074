//! Which images are found.

use std::path::Path;

use image::ImageFormat;
use proptest::prelude::*;
use ssl_cluster::data::items::Items;
use ssl_cluster::data::source::{ImageSet, natural_order};
use tempfile::TempDir;

use super::{names, ramp, save};

#[test]
fn a_directory_is_searched_in_natural_order_without_hidden_files_and_loops() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    for name in [
        "b/10.png",
        "b/2.png",
        "a/1.PNG",
        ".hidden/3.png",
        "b/.4.png",
    ] {
        save(&root.join(name), ramp(4, 4), ImageFormat::Png);
    }
    std::fs::write(root.join("a/notes.txt"), "text").unwrap();
    std::os::unix::fs::symlink(root, root.join("b/loop")).unwrap();
    let set = ImageSet::find(root).unwrap();
    assert_eq!(names(&set), ["a/1.PNG", "b/2.png", "b/10.png"]);
    assert_eq!(set.classes, ["a", "b"]);
    assert_eq!(set.files[2].class, Some(1));
    assert_eq!(set.others, 1);
    assert_eq!(
        set.skipped.len(),
        1,
        "the loop is reported: {:?}",
        set.skipped
    );
    assert!(ImageSet::find(&root.join("none")).is_err());
}

#[test]
fn images_in_one_folder_have_no_classes() {
    let folder = TempDir::new().unwrap();
    save(&folder.path().join("a/1.png"), ramp(4, 4), ImageFormat::Png);
    save(&folder.path().join("a/2.png"), ramp(4, 4), ImageFormat::Png);
    assert!(ImageSet::find(folder.path()).unwrap().classes.is_empty());
}

proptest! {
    #[test]
    fn natural_order_is_an_order(a in "[a-z0-9]{0,6}", b in "[a-z0-9]{0,6}", c in "[a-z0-9]{0,6}") {
        use std::cmp::Ordering::{Equal, Greater};
        prop_assert_eq!(natural_order(&a, &b), natural_order(&b, &a).reverse());
        prop_assert_eq!(natural_order(&a, &b) == Equal, a == b);
        if natural_order(&a, &b) != Greater && natural_order(&b, &c) != Greater {
            prop_assert!(natural_order(&a, &c) != Greater);
        }
    }
}

/// A shard of these members.
fn shard(path: &Path, members: &[(&str, &[u8])]) {
    let mut builder = tar::Builder::new(std::fs::File::create(path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.finish().unwrap();
}

fn png(width: u32) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    ramp(width, 5)
        .write_to(&mut bytes, ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

#[test]
fn images_in_shards_are_read_where_they_lie() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.tar");
    // Longer than a tar header's field, so that it comes in a record of its own.
    let long = format!("{}/10.png", "d".repeat(150));
    let (one, two) = (png(11), png(12));
    shard(
        &path,
        &[
            (&long, &one),
            ("e/2.png", &two),
            ("e/notes.txt", b"text"),
            (".hidden/1.png", &one),
        ],
    );
    let set = ImageSet::find(&path).unwrap();
    let prefix = path.to_str().unwrap();
    assert_eq!(
        names(&set),
        [format!("{prefix}/{long}"), format!("{prefix}/e/2.png")]
    );
    assert_eq!(set.classes, [&"d".repeat(150), "e"]);
    assert_eq!((set.bytes(0).unwrap(), set.bytes(1).unwrap()), (one, two));
    assert_eq!((set.others, set.skipped.len()), (1, 0));
}

#[test]
fn the_class_of_a_sample_stands_in_its_cls_member() {
    let folder = TempDir::new().unwrap();
    let image = png(3);
    for (name, sample, class) in [("b.tar", "000.x", "7"), ("a.tar", "001", "12")] {
        let (picture, label) = (format!("{sample}.jpg"), format!("000{}.cls", &sample[3..3]));
        let label = if sample == "001" { "001.cls" } else { &label };
        shard(
            &folder.path().join(name),
            &[(&picture, &image), (label, class.as_bytes())],
        );
    }
    // A directory of shards, as data sets come.
    let set = ImageSet::find(folder.path()).unwrap();
    assert_eq!(names(&set), ["a.tar/001.jpg", "b.tar/000.x.jpg"]);
    assert_eq!(set.classes, ["7", "12"]);
    assert_eq!([set.files[0].class, set.files[1].class], [Some(1), Some(0)]);
}

#[test]
fn members_of_a_shard_without_folders_have_no_classes() {
    let folder = TempDir::new().unwrap();
    let image = png(3);
    shard(&folder.path().join("a.tar"), &[("1.png", &image)]);
    shard(&folder.path().join("b.tar"), &[("1.png", &image)]);
    let set = ImageSet::find(folder.path()).unwrap();
    assert_eq!(set.files.len(), 2);
    assert!(set.classes.is_empty() && set.files[0].class.is_none());
}

#[test]
fn what_a_cut_shard_still_holds_is_used_and_the_rest_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.tar");
    let image = png(40);
    shard(&path, &[("1.png", &image), ("2.png", &image)]);
    let whole = std::fs::read(&path).unwrap();
    let second = 512 + image.len().div_ceil(512) * 512;
    std::fs::write(&path, &whole[..second + 512 + 10]).unwrap();
    let set = ImageSet::find(folder.path()).unwrap();
    assert_eq!(names(&set), ["a.tar/1.png"]);
    assert_eq!(set.bytes(0).unwrap(), image);
    assert_eq!(set.skipped[0].path, "a.tar/2.png");
    assert!(set.skipped[0].reason.contains("truncated"));
    // What is no tar at all, or compressed, is an error as an input, and named in a directory.
    std::fs::write(&path, [7; 2000]).unwrap();
    let compressed = folder.path().join("b.tar.gz");
    std::fs::write(&compressed, [7; 2000]).unwrap();
    assert!(ImageSet::find(&path).is_err());
    let error = ImageSet::find(&compressed).unwrap_err().to_string();
    assert!(error.contains("decompress"), "{error}");
    let set = ImageSet::find(folder.path()).unwrap();
    assert_eq!((set.files.len(), set.skipped.len()), (0, 2));
}

#[test]
fn inputs_are_mixed_in_the_order_given_and_named_by_it() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    save(&at("d/x/2.png"), ramp(4, 4), ImageFormat::Png);
    save(&at("d/y/1.png"), ramp(4, 4), ImageFormat::Png);
    save(&at("single.png"), ramp(4, 4), ImageFormat::Png);
    shard(&at("s.tar"), &[("z/1.png", &png(6))]);
    std::fs::write(at("list.txt"), "single.png\nd\ns.tar\n\nd/y/1.png\r\n").unwrap();
    let set = ImageSet::find_from(&[at("list.txt")], folder.path()).unwrap();
    assert_eq!(
        names(&set),
        [
            "single.png",
            "d/x/2.png",
            "d/y/1.png",
            "s.tar/z/1.png",
            "d/y/1.png"
        ]
    );
    assert!((0..5).all(|row| set.bytes(row).is_ok()));
    // One image by two names.
    assert_eq!(set.identity(2), set.identity(4));
    assert_ne!(set.identity(2), set.identity(1));
    let set = ImageSet::find_from(&[at("s.tar"), at("d")], Path::new("")).unwrap();
    let root = folder.path().to_str().unwrap();
    let expected = ["s.tar/z/1.png", "d/x/2.png", "d/y/1.png"];
    assert_eq!(names(&set), expected.map(|name| format!("{root}/{name}")));
    assert_eq!(set.classes, ["x", "y", "z"]);
    assert!((0..3).all(|row| set.bytes(row).is_ok()));
    assert!(ImageSet::find_from(&[at("d"), at("none")], Path::new("")).is_err());
}

#[test]
fn links_in_a_shard_are_named_not_lost() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.tar");
    let mut builder = tar::Builder::new(std::fs::File::create(&path).unwrap());
    let image = png(3);
    let mut header = tar::Header::new_gnu();
    header.set_size(image.len() as u64);
    builder
        .append_data(&mut header, "../1.png", &image[..])
        .unwrap_err();
    builder
        .append_data(&mut header, "1.png", &image[..])
        .unwrap();
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "2.png", "1.png").unwrap();
    builder.finish().unwrap();
    let set = ImageSet::find(folder.path()).unwrap();
    assert_eq!(names(&set), ["a.tar/1.png"]);
    assert_eq!(set.skipped[0].path, "a.tar/2.png");
    assert!(set.skipped[0].reason.contains("link"));
}

#[test]
fn what_is_no_regular_file_or_has_no_bytes_is_refused_before_it_is_read() {
    let folder = TempDir::new().unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("endless.png")).unwrap();
    std::fs::write(folder.path().join("empty.png"), b"").unwrap();
    let set = ImageSet::find(folder.path()).unwrap();
    assert_eq!(names(&set), ["empty.png", "endless.png"]);
    let reason = |row| set.bytes(row).unwrap_err().to_string();
    assert!(reason(0).contains("empty") && reason(1).contains("no regular file"));
}

#[test]
fn what_is_no_text_is_no_list() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("archive");
    shard(&path, &[("a/1.png", &png(9))]);
    let error = ImageSet::find(&path).unwrap_err().to_string();
    assert!(error.contains("not text"), "{error}");
    let error = ImageSet::from_list(std::fs::File::open(&path).unwrap());
    assert!(error.unwrap_err().to_string().contains("not text"));
    // `find -print0` ends names by zeros, and names in other scripts are text.
    save(
        &folder.path().join("\u{fc}ber/1.png"),
        ramp(4, 4),
        ImageFormat::Png,
    );
    std::fs::write(&path, "\u{fc}ber/1.png\0").unwrap();
    let set = ImageSet::find_from(&[&path], folder.path()).unwrap();
    assert_eq!(names(&set), ["\u{fc}ber/1.png"]);
}
