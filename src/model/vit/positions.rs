//! Where a patch lies: learned vectors that are added to tokens, or angles by which queries and keys are turned.

use std::f64::consts::TAU;

use tch::{Device, Kind, Tensor};

/// Learned positions `[1, first + h w, c]` for another grid of patches. The `first` ones belong to tokens that
/// lie nowhere and stay; the others are interpolated, bicubic and antialiased as timm does
/// (`resample_abs_pos_embed`). They are taken to be those of a square.
pub fn resampled(positions: &Tensor, first: i64, (height, width): (i64, i64)) -> Tensor {
    let [_, count, channels] = positions.size()[..] else {
        return positions.shallow_clone();
    };
    let side = ((count - first) as f64).sqrt() as i64;
    if side == 0 || side * side != count - first || (side, side) == (height, width) {
        return positions.shallow_clone();
    }
    let own = positions.narrow(1, 0, first);
    let map = positions
        .narrow(1, first, side * side)
        .to_kind(Kind::Float)
        .reshape([1, side, side, channels])
        .permute([0, 3, 1, 2]);
    let map = map.internal_upsample_bicubic2d_aa([height, width], false, None, None);
    let moved = map.permute([0, 2, 3, 1]).reshape([1, -1, channels]);
    Tensor::cat(&[own, moved.to_kind(positions.kind())], 1)
}

/// Axial rotary positions: the sines and cosines `[h w, 1, d]` of a grid's angles for a head of `d` channels.
///
/// Siméoni et al., "DINOv3", <https://arxiv.org/abs/2508.10104>, after Su et al., "RoFormer",
/// <https://arxiv.org/abs/2104.09864>. The centres of the patches have coordinates from -1 to 1 along both
/// axes; angle j of d/4 turns 100^(-4j/d) times for each unit of a coordinate. (Meta's files hold these periods in
/// bf16; like timm, this computes them.)
#[derive(Debug)]
pub struct Rotary {
    grid: (i64, i64),
    sines: Tensor,
    cosines: Tensor,
}

/// DINOv3's longest period: RoFormer's 10,000 is for long texts.
const LONGEST: f64 = 100.;

impl Rotary {
    pub fn new(grid: (i64, i64), head: i64) -> Self {
        let (height, width) = grid;
        let cpu = (Kind::Float, Device::Cpu);
        let exponents = Tensor::arange(head / 4, cpu) * (4. / head as f64);
        let turns = Tensor::from(LONGEST).to_kind(Kind::Float).pow(&exponents);
        let along = |side: i64| (Tensor::arange(side, cpu) + 0.5) * (2. / side as f64) - 1.;
        let angles = |side: i64| along(side).unsqueeze(-1) * TAU / &turns;
        let quarter = head / 4;
        let rows = angles(height)
            .unsqueeze(1)
            .expand([height, width, quarter], false);
        let columns = angles(width)
            .unsqueeze(0)
            .expand([height, width, quarter], false);
        let half = Tensor::cat(&[rows, columns], -1).reshape([-1, 1, head / 2]);
        let angles = Tensor::cat(&[&half, &half], -1);
        Self {
            grid,
            sines: angles.sin(),
            cosines: angles.cos(),
        }
    }

    /// The same for another grid.
    pub fn on(&self, grid: (i64, i64)) -> Self {
        if grid == self.grid {
            return Self {
                grid,
                sines: self.sines.shallow_clone(),
                cosines: self.cosines.shallow_clone(),
            };
        }
        Self::new(grid, self.sines.size()[2])
    }

    /// On the device where tokens are.
    pub fn to_device(&self, device: Device) -> Self {
        Self {
            grid: self.grid,
            sines: self.sines.to_device(device),
            cosines: self.cosines.to_device(device),
        }
    }

    /// Queries or keys `[b, n, .., heads, d]`, whose last tokens are the patches, turned; the angles are f32.
    pub fn turn(&self, tokens: &Tensor) -> Tensor {
        let count = self.grid.0 * self.grid.1;
        let first = tokens.size()[1] - count;
        let patches = tokens.narrow(1, first, count);
        let [left, right] = &patches.chunk(2, -1)[..] else {
            unreachable!("two halves were asked for");
        };
        let quarter_turn = Tensor::cat(&[&-right, left], -1);
        let shape = [&[count], &vec![1; tokens.dim() - 3][..], &[-1]].concat();
        let [sines, cosines] = [&self.sines, &self.cosines].map(|t| t.view(&shape[..]));
        let turned = patches * cosines + quarter_turn * sines;
        Tensor::cat(
            &[tokens.narrow(1, 0, first), turned.to_kind(tokens.kind())],
            1,
        )
    }
}
