//! Networks at work: folded for inference, and in bf16; their middle layers.

use std::sync::Mutex;

use ssl_cluster::device::Precision;
use ssl_cluster::model::network::Network;
use ssl_cluster::model::weights::named_variables;
use ssl_cluster::model::{BACKBONES, BackboneEntry, learns};
use tch::{Device, Kind, Tensor};

/// The smallest size at which every backbone works as at its usual one: AlexNet pools to 6 x 6.
fn size_of(entry: &BackboneEntry) -> usize {
    match entry.name {
        "alexnet" => 100,
        "conv4" => 28,
        _ => entry.size_from(33),
    }
}

/// Those of which none is a larger one of the same layers.
fn backbones() -> impl Iterator<Item = &'static BackboneEntry> {
    BACKBONES.iter().filter(|entry| entry.smaller.is_none())
}

/// A network whose batch norms have seen other than the initial statistics, and whose layer scale lets all blocks
/// through; the same each time.
fn network(entry: &BackboneEntry, precision: Precision) -> Network {
    // libtorch has one generator for all threads.
    static GENERATOR: Mutex<()> = Mutex::new(());
    let _alone = GENERATOR.lock();
    tch::set_num_threads(2);
    tch::manual_seed(7);
    let size = size_of(entry);
    let network = Network::new(entry, size, false, Device::Cpu, precision).unwrap();
    tch::no_grad(|| {
        for (name, mut variable) in named_variables(&network.store) {
            if name.ends_with("running_var") {
                let _ = variable.uniform_(0.5, 2.0);
            } else if name.ends_with("running_mean") || name.ends_with("bias") {
                let _ = variable.uniform_(-0.2, 0.2);
            } else if name.contains("gamma") || name.ends_with("layer_scale") {
                let _ = variable.uniform_(0.2, 0.8);
            }
        }
    });
    network
}

fn images(entry: &BackboneEntry, count: i64) -> Tensor {
    let size = size_of(entry) as i64;
    let count_of_numbers = count * 3 * size * size;
    let numbers = Tensor::arange(count_of_numbers, (Kind::Float, Device::Cpu));
    ((numbers * 0.37).sin() * 0.5 + 0.5).view([count, 3, size, size])
}

/// ‖a − b‖ / ‖b‖
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).norm().double_value(&[]) / b.norm().double_value(&[])
}

#[test]
fn an_inference_network_answers_as_the_one_that_it_came_from() {
    for entry in backbones() {
        let network = network(entry, Precision::F32);
        let images = images(entry, 3);
        let prepared = network.prepare(&images);
        let inference = network.for_inference();
        let (hidden, activation) = tch::no_grad(|| {
            (
                network.hidden(&prepared, false),
                network.activation(&prepared, false),
            )
        });
        assert_eq!(hidden.size(), [3, network.dim()]);
        let off = distance(&inference.hidden(&images), &hidden);
        assert!(off < 1e-4, "{}: {off}", entry.name);
        let off = distance(&inference.activation(&images), &activation);
        assert!(off < 1e-4, "{}: {off}", entry.name);
    }
}

#[test]
fn an_inference_network_does_not_follow_when_the_other_learns() {
    let entry = ssl_cluster::model::find("conv4").unwrap();
    let network = network(entry, Precision::F32);
    let images = images(entry, 2);
    let inference = network.for_inference();
    let before = inference.hidden(&images);
    tch::no_grad(|| {
        for mut variable in network.store.trainable_variables() {
            variable *= 2.0;
        }
    });
    assert_eq!(inference.hidden(&images), before);
    assert!(distance(&network.for_inference().hidden(&images), &before) > 0.1);
}

#[test]
fn bf16_answers_as_f32_but_for_its_rounding_and_gives_f32_features() {
    for entry in backbones() {
        let images = images(entry, 3);
        let exact = network(entry, Precision::F32)
            .for_inference()
            .hidden(&images);
        let rounded = network(entry, Precision::Bf16)
            .for_inference()
            .hidden(&images);
        assert_eq!(rounded.kind(), Kind::Float);
        let off = distance(&rounded, &exact);
        // One rounding is 2⁻⁹; it adds up over the layers.
        assert!(off > 0.0 && off < 0.05, "{}: {off}", entry.name);
    }
}

#[test]
fn in_bf16_parameters_gradients_and_batch_statistics_stay_f32() {
    let entry = ssl_cluster::model::find("conv4").unwrap();
    let images = images(entry, 32);
    let step = |precision| {
        let network = network(entry, precision);
        let features = network.activation(&network.prepare(&images), true);
        let weights = Tensor::arange(network.dim(), (Kind::Float, Device::Cpu)).sin();
        (features * weights).mean(Kind::Float).backward();
        network
    };
    let (exact, rounded) = (step(Precision::F32), step(Precision::Bf16));
    let pairs = named_variables(&exact.store)
        .into_iter()
        .zip(named_variables(&rounded.store));
    for ((name, exact), (_, rounded)) in pairs {
        assert_eq!(rounded.kind(), Kind::Float, "{name}");
        let off = if rounded.requires_grad() {
            assert_eq!(rounded.grad().kind(), Kind::Float, "{name}");
            distance(&rounded.grad(), &exact.grad())
        } else {
            distance(&rounded, &exact)
        };
        assert!(off < 0.1, "{name}: {off}");
    }
}

#[test]
fn middle_layers_show_their_maps() {
    for entry in backbones().filter(|entry| learns(entry.name)) {
        let network = network(entry, Precision::F32);
        let layers = network.backbone.layers();
        let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
        assert!(names.len() >= 3, "{}", entry.name);
        let input = network.prepare(&images(entry, 2));
        let (maps, middle) = tch::no_grad(|| network.maps_with(&input, false, &names).unwrap());
        assert_eq!(middle.len(), names.len(), "{}: names differ", entry.name);
        let mut side = i64::MAX;
        for layer in &layers {
            let map = &middle[&layer.name];
            let size = map.size();
            assert_eq!(size[..2], [2, layer.channels], "{}", layer.name);
            assert!(size[2] <= side && size[2] == size[3], "{}", layer.name);
            side = size[2];
            let rectified = map.min().double_value(&[]) >= 0.0;
            // Transformers and ConvNeXt have no last ReLU, and MobileNetV2's bottlenecks are linear.
            let open = ["vit", "convnext", "mobilenet"];
            let open = open.iter().any(|start| entry.name.starts_with(start));
            assert!(rectified != open, "{} {}", entry.name, layer.name);
        }
        assert_eq!(maps.last.size()[1], network.backbone.channels());
        let token = maps.token.map(|token| token.size());
        let transformer = entry.name.starts_with("vit");
        assert_eq!(
            token,
            transformer.then(|| vec![2, network.backbone.channels()])
        );
        // To be seen changes nothing, and those that are not asked for are not there.
        let (again, one) = tch::no_grad(|| network.maps_with(&input, false, &names[..1]).unwrap());
        assert_eq!(again.last, maps.last);
        assert_eq!(one.keys().collect::<Vec<_>>(), [names[0]]);
        let error = network.maps_with(&input, false, &["conv99"]).unwrap_err();
        assert!(error.contains(names[0]), "{error}");
    }
    // torchvision's stages end in the last map.
    let resnet = BACKBONES.iter().find(|entry| entry.name == "resnet18");
    let network = network(resnet.unwrap(), Precision::F32);
    let input = network.prepare(&images(resnet.unwrap(), 2));
    let (maps, middle) = network.maps_with(&input, false, &["layer4"]).unwrap();
    assert_eq!(middle["layer4"], maps.last);
}
