//! A method with a queue that is filled after updates, which a loss that was computed twice, or for a part
//! of a batch, must not disturb.

use anyhow::Result;
use ssl_cluster::config::Settings;
use ssl_cluster::method::{
    Archive, Batch, Context, Kept, Loss, Method, MethodEntry, Module, Panel, as_they_are,
};
use ssl_cluster::model::{LinearHead, store_on};
use tch::{Device, Kind, Tensor, nn};
use tempfile::TempDir;

use crate::drawings::discs;
use crate::harness::{Look, config, dataset, run};
use crate::resume;

pub const ENTRY: MethodEntry = MethodEntry {
    name: "queue",
    help: "",
    paper: "",
    preset: |_| Settings::default(),
    first: |_| None,
    items: as_they_are,
    options: &[],
    defaults: toml::Table::new,
    resolve: |_, _| Ok(Vec::new()),
    build: |build| {
        let (store, head) = store_on(build.network.device(), |root| {
            LinearHead::new(root, build.network.dim(), WIDTH)
        });
        Ok(Box::new(Queue {
            store,
            head,
            queue: Tensor::zeros([LENGTH, WIDTH], (Kind::Float, Device::Cpu)),
            images: Vec::new(),
        }))
    },
    pretext: false,
};

const WIDTH: i64 = 4;
const LENGTH: i64 = 20;

struct Queue {
    store: nn::VarStore,
    head: LinearHead,
    /// The newest projections, the oldest first.
    queue: Tensor,
    /// All images that ever went in.
    images: Vec<u32>,
}

impl Method for Queue {
    fn loss(&self, context: &Context, batch: &Batch, _update: usize) -> Result<Loss> {
        let input = context.network.prepare(&context.view(batch, 0));
        let projected = self.head.forward(&context.network.activation(&input, true));
        // Away from what is in the queue.
        let value = (&projected - self.queue.mean_dim(0, true, Kind::Float) - 1.0)
            .square()
            .mean(Kind::Float);
        Ok(Loss {
            kept: [("projected".to_string(), projected.detach())].into(),
            ..Loss::of(value)
        })
    }

    fn after_update(&mut self, _context: &Context, _update: usize, kept: Vec<Kept>) -> Result<()> {
        for part in kept {
            let longer = Tensor::cat(&[&self.queue, &part.tensors["projected"]], 0);
            let length = longer.size()[0];
            self.queue = longer.narrow(0, length - LENGTH, LENGTH).copy();
            self.images.extend(part.indices);
        }
        Ok(())
    }

    fn modules(&self) -> Vec<Module<'_>> {
        vec![Module::new("projection", &self.store)]
    }

    fn preview(&self, _context: &Context, _batch: &Batch) -> Result<Vec<Panel>> {
        Ok(Vec::new())
    }

    fn archive(&mut self, archive: &mut Archive) -> Result<()> {
        archive.tensor("queue", &mut self.queue)?;
        archive.labels("images", &mut self.images)
    }
}

#[test]
fn every_image_goes_into_the_queue_once_an_epoch() {
    let folder = TempDir::new().unwrap();
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    discs(&images, 40, 32);
    let config = config(&ENTRY, 40, |config| config.train.accumulate = 4);
    let data = dataset(&ENTRY, &images, &config);
    let place = folder.path().join("run");
    // Stopped in the second epoch, after five batches of 16, 16 and 8.
    run(&ENTRY, &config, &data, &place, Some(5));
    let file = place.join("checkpoint/state.safetensors");
    let saved = ssl_cluster::model::weights::read(&file).unwrap();
    let mut seen: Vec<i64> = Vec::try_from(&saved.tensors["method/images"]).unwrap();
    assert_eq!(seen.len(), 40 + 32);
    let mut epoch: Vec<i64> = seen.drain(..40).collect();
    epoch.sort_unstable();
    assert_eq!(epoch, (0..40).collect::<Vec<i64>>());
}

#[test]
fn nothing_goes_in_before_the_update_is_made() {
    let folder = TempDir::new().unwrap();
    discs(folder.path(), 24, 32);
    let config = config(&ENTRY, 24, |_| {});
    let data = dataset(&ENTRY, folder.path(), &config);
    let mut look = Look::new(&ENTRY, &config, &data);
    look.at(&[0, 1, 2], |method, context, batch| {
        method.loss(context, batch, 0).unwrap();
    });
    assert_eq!(
        look.state().tensors["queue"].abs().max().double_value(&[]),
        0.0
    );
    assert!(resume::all().iter().any(|entry| entry.name == ENTRY.name));
}
