//! Several views of each image, of several sizes.

use tch::Tensor;

use super::{Augmentation, ViewKey};
use crate::data::image_batch::ImageBatch;

/// Views that are made in the same way.
#[derive(Debug, Clone, PartialEq)]
pub struct Crops {
    pub count: usize,
    pub augmentation: Augmentation,
}

/// Multi-crop: a few large views and more small ones, which cost little (Caron et al., SwAV, NeurIPS
/// 2020, section 3.2; facebookresearch/swav `multicropdataset.py`).
#[derive(Debug, Clone, PartialEq)]
pub struct MultiCrop(pub Vec<Crops>);

impl MultiCrop {
    /// SwAV's: two views of `size` pixels from 0.14 of the area on, and six of 3/7 of that size (96 for
    /// 224) from 0.05 to 0.14 of it, otherwise as `base`.
    pub fn swav(base: &Augmentation, size: i64) -> Self {
        let crops = |count, size, crop_scale| Crops {
            count,
            augmentation: Augmentation {
                size,
                crop_scale,
                ..base.clone()
            },
        };
        Self(vec![
            crops(2, size, [0.14, 1.0]),
            crops(6, (3 * size / 7).max(1), [0.05, 0.14]),
        ])
    }

    /// All views `[b, 3, size, size] f32` in 0..1 of images, those of the first crops first. `rows` says
    /// which images they are; the first view has the number of `key`, each further one the next.
    pub fn apply(&self, images: &ImageBatch, rows: &[u32], key: ViewKey) -> Vec<Tensor> {
        let each = self
            .0
            .iter()
            .flat_map(|crops| std::iter::repeat_n(&crops.augmentation, crops.count));
        (key.view..)
            .zip(each)
            .map(|(view, augmentation)| augmentation.apply(images, rows, ViewKey { view, ..key }))
            .collect()
    }
}
