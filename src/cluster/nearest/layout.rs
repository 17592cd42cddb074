//! Which centroids lie together in panels, and distances in whole units.

use crate::cluster::kernel::{COLUMNS, padded};

/// The order of centroids in panels, and panels in groups that share a bound.
#[derive(Debug)]
pub struct Layout {
    /// Centroids in the order of their panels.
    pub order: Vec<u32>,
    /// The position of each centroid in `order`.
    places: Vec<u32>,
    /// Panels of a group.
    pub width: usize,
}

impl Layout {
    /// `k` centroids as they come, in groups that are as small as memory allows: a bound takes two
    /// bytes for each of the `n` points and each group, all together `n · d` bytes and `memory`.
    pub fn new(n: usize, d: usize, k: usize, memory: usize) -> Self {
        let panels = k.div_ceil(COLUMNS);
        let most = ((n * d + memory) / (2 * n.max(1))).clamp(1, panels.max(1));
        Self::of((0..k as u32).collect(), panels.div_ceil(most))
    }

    /// Whether `n` points `[n, d]` in 16 bits have room beside the bounds.
    pub fn leaves_room(&self, n: usize, d: usize, memory: usize) -> bool {
        2 * n * (padded(d) + self.groups()) <= n * d + memory
    }

    /// The same groups filled in another order.
    pub fn reordered(&self, order: Vec<u32>) -> Self {
        Self::of(order, self.width)
    }

    fn of(order: Vec<u32>, width: usize) -> Self {
        let mut places = vec![0; order.len()];
        for (place, &centroid) in (0..).zip(&order) {
            places[centroid as usize] = place;
        }
        Self {
            order,
            places,
            width,
        }
    }

    pub fn groups(&self) -> usize {
        self.order.len().div_ceil(self.group_size())
    }

    fn group_size(&self) -> usize {
        self.width * COLUMNS
    }

    /// The group that holds a centroid.
    pub fn group_of(&self, centroid: u32) -> usize {
        self.places[centroid as usize] as usize / self.group_size()
    }

    /// The panel that holds a centroid, and its column there.
    pub fn panel_of(&self, centroid: u32) -> (usize, usize) {
        let place = self.places[centroid as usize] as usize;
        (place / COLUMNS, place % COLUMNS)
    }

    /// The largest of some distances, one for each centroid, in each group; 0 only where all are.
    pub fn largest(&self, distances: &[f64], unit: Unit) -> Vec<u16> {
        let largest = |members: &[u32]| {
            let distances = members.iter().map(|&centroid| distances[centroid as usize]);
            distances.fold(0.0, f64::max)
        };
        self.members()
            .map(|members| unit.up_to(largest(members)))
            .collect()
    }

    /// The centroids of each group.
    pub fn members(&self) -> impl Iterator<Item = &[u32]> {
        self.order.chunks(self.group_size())
    }
}

/// Distances as 16-bit multiples of a unit, rounded to the safe side.
#[derive(Debug, Clone, Copy)]
pub struct Unit {
    /// Units in a distance of 1.
    inverse: f64,
}

impl Unit {
    /// For points and centroids with norms up to `largest`; longer distances saturate.
    pub fn new(largest: f64) -> Self {
        Self {
            inverse: if largest > 0.0 {
                65_000.0 / (2.0 * largest)
            } else {
                1.0
            },
        }
    }

    /// Not more than `distance`, with room for the rounding of f64.
    #[inline(always)]
    pub fn below(self, distance: f64) -> u16 {
        whole(distance * self.inverse - 1.5)
    }

    /// As [`Self::above`], but nothing for no movement at all.
    pub fn up_to(self, drift: f64) -> u16 {
        if drift > 0.0 { self.above(drift) } else { 0 }
    }

    /// Not less than `distance`, with room for the rounding of f64, where it can be said at all.
    #[inline(always)]
    pub fn above(self, distance: f64) -> u16 {
        whole(distance * self.inverse + 2.0)
    }
}

/// The nearest whole number, by operations that have vector instructions, unlike `as`.
#[inline(always)]
fn whole(units: f64) -> u16 {
    let most = f64::from(u16::MAX);
    let units = if units > 0.0 { units } else { 0.0 };
    let units = if units < most { units } else { most };
    // From 2^52 on the lowest bits of an f64 are those of a whole number.
    const WHOLE: f64 = 4_503_599_627_370_496.0;
    (units + WHOLE).to_bits() as u16
}

#[cfg(test)]
mod tests {
    use super::{Layout, Unit};

    #[test]
    fn every_centroid_has_one_place() {
        for (n, d, k) in [(10, 4, 1), (1000, 8, 100), (50_000_000, 1, 1000)] {
            let memory = 80 << 20;
            let layout = Layout::new(n, d, k, memory);
            let groups: Vec<&[u32]> = layout.members().collect();
            assert_eq!(groups.len(), layout.groups());
            for (index, group) in groups.iter().enumerate() {
                assert!(
                    group
                        .iter()
                        .all(|&centroid| layout.group_of(centroid) == index)
                );
            }
            assert_eq!(groups.iter().map(|group| group.len()).sum::<usize>(), k);
            assert!(2 * n * layout.groups() <= n * d + memory || layout.groups() == 1);
        }
    }

    #[test]
    fn units_round_to_the_safe_side() {
        let unit = Unit::new(3.0);
        for distance in [0.0, 1e-9, 0.1, 2.0, 5.9, 6.0, 100.0] {
            let (below, above) = (
                f64::from(unit.below(distance)),
                f64::from(unit.above(distance)),
            );
            assert!(below <= distance * unit.inverse);
            assert!(above >= (distance * unit.inverse).min(65_535.0));
            assert!(above - below <= 4.0);
        }
    }
}
