//! What stands beside a network: a backbone that no gradient reaches, whose features are joined to the network's own
//! where they are clustered. A network that has learned of photographs sees little in letters or textures, and visual
//! words see what is there.

use tch::{Device, Kind, Tensor, nn};

use super::{Backbone, BackboneEntry, Shape, ShapeError, store_on};
use crate::tensors::l2_rows;

/// A second backbone.
#[derive(Debug)]
pub struct Beside {
    pub store: nn::VarStore,
    pub backbone: Box<dyn Backbone>,
    /// Side of its input, in pixels.
    pub size: i64,
    length: f64,
}

impl Beside {
    /// That of `entry`, whose features have a length of `length` where those of the network have one of 1.
    ///
    /// # Errors
    /// An entry that does not work at its own size.
    pub fn new(entry: &BackboneEntry, length: f64, device: Device) -> Result<Self, ShapeError> {
        let size = entry.input.size as i64;
        let shape = Shape {
            size,
            in_channels: 3,
        };
        let (store, backbone) = store_on(device, |root| entry.build(root, &shape));
        Ok(Self {
            store,
            backbone: backbone?,
            size,
            length,
        })
    }

    /// The same for inference.
    pub(super) fn folded(&self) -> InferenceBeside {
        InferenceBeside {
            backbone: self.backbone.folded(Kind::Float),
            length: self.length,
        }
    }
}

/// The same where nothing is learned.
#[derive(Debug)]
pub(super) struct InferenceBeside {
    backbone: Box<dyn Backbone>,
    length: f64,
}

impl InferenceBeside {
    /// A network's features `[b, d]` of unit length, and behind them those of the same images
    /// `[b, 3, size, size] f32` in 0..1 as this backbone sees them.
    pub fn joined(&self, features: &Tensor, images: &Tensor) -> Tensor {
        let own = self
            .backbone
            .hidden(&self.backbone.maps(images, false), false);
        Tensor::cat(&[l2_rows(features), l2_rows(&own) * self.length], 1)
    }
}
