//! Pictures of what methods see and predict that learn labels of images.

use tch::{Kind, Tensor};

use super::{Batch, Context, Panel, Tile};

/// For each image itself, and for each head the random view that it looks at, with the image's pseudo-label and
/// the label that is predicted. `labels` are those of the data set, for each head; none yet where they are
/// empty. `scores` gives `[b, heads, k]` of what a head sees `[b, d]`.
pub fn label_panels(
    context: &Context,
    batch: &Batch,
    labels: &[&[u32]],
    scores: impl Fn(&Tensor) -> Tensor,
) -> Vec<Panel> {
    let (images, views) = (context.plain(batch), context.view(batch, 0));
    let input = context.network.prepare(&views);
    let scores = scores(&context.network.activation(&input, false));
    let (shares, predicted) = scores.softmax(-1, Kind::Float).max_dim(-1, false);
    let panel = |(at, &image): (i64, &u32)| {
        let mut tiles = vec![Tile::new(&images.get(at), "image")];
        tiles.extend(labels.iter().zip(0..).map(|(labels, head)| {
            let given = predicted.int64_value(&[at, head]);
            let share = 100.0 * shares.double_value(&[at, head]);
            let of = match scores.size()[1] {
                1 => String::new(),
                _ => format!("head {head}: "),
            };
            let view = |known: &str| {
                let caption = format!("{of}{known}predicted {given} ({share:.0} %)");
                Tile::new(&views.get(at), caption)
            };
            match labels.get(image as usize) {
                None => view(""),
                Some(&label) => {
                    view(&format!("pseudo-label {label}, ")).answered(i64::from(label) == given)
                }
            }
        }));
        Panel(tiles)
    };
    (0..).zip(&batch.indices).map(panel).collect()
}
