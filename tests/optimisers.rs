//! Optimisers step by step against PyTorch's (`tests/fixtures/make.py: make_optimisers`), and what a
//! resumed run makes of their state.

mod common;

use std::collections::BTreeMap;

use common::noise;
use serde_json::Value;
use ssl_cluster::train::optim::{Optimiser, Rule, Training};
use tch::{Device, Kind, Tensor, nn};

const SHAPES: [(&str, &[i64]); 2] = [("bias", &[5]), ("weight", &[3, 4])];

fn numbers(name: &str, shape: &[i64]) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let values: Vec<f32> = noise(name, count).map(|value| value as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

/// The parameters of the fixtures, and one that no loss depends on.
fn parameters() -> nn::VarStore {
    let store = nn::VarStore::new(Device::Cpu);
    let root = store.root();
    for (name, shape) in SHAPES {
        let mut variable = root.zeros(name, shape);
        tch::no_grad(|| variable.copy_(&numbers(name, shape)));
    }
    let _ = root.ones("unused", &[2]);
    store
}

/// A loss whose gradient by each parameter is the one that the fixtures take in this step.
fn loss(store: &nn::VarStore, step: usize) -> Tensor {
    let variables = store.variables();
    SHAPES
        .iter()
        .map(|(name, shape)| {
            (&variables[*name] * numbers(&format!("{name} {step}"), shape)).sum(Kind::Float)
        })
        .reduce(|a, b| a + b)
        .unwrap()
}

fn training(case: &Value) -> Training {
    let number = |key: &str| case[key].as_f64().unwrap();
    Training {
        rule: match case["rule"].as_str().unwrap() {
            "sgd" => Rule::Sgd {
                momentum: number("momentum"),
            },
            "adamw" => Rule::AdamW {
                betas: [0, 1].map(|at| case["betas"][at].as_f64().unwrap()),
            },
            "larc" => Rule::Larc {
                momentum: number("momentum"),
                trust: number("trust"),
            },
            other => panic!("{other}"),
        },
        // Half of twice the rate.
        lr: 0.5,
        weight_decay: number("weight_decay"),
    }
}

fn cases() -> Vec<Value> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/optimisers.json"
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn step(optimiser: &mut Optimiser, store: &nn::VarStore, step: usize) {
    optimiser.zero_grad();
    // In two parts, as an accumulated batch comes.
    optimiser.backward(&(loss(store, step) * 0.25), &[]);
    optimiser.backward(&(loss(store, step) * 0.75), &[]);
    optimiser.step(&[], 0.2 / (step + 1) as f64);
}

fn check(store: &nn::VarStore, expected: &Value, told: &str) {
    let variables = store.variables();
    for (name, _) in SHAPES {
        let ours: Vec<f32> = Vec::try_from(&variables[name].detach().flatten(0, -1)).unwrap();
        let theirs: Vec<f64> = serde_json::from_value(expected[name].clone()).unwrap();
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            let off = (f64::from(ours) - theirs).abs();
            assert!(off < 2e-6, "{told}, {name}: {ours}, PyTorch's {theirs}");
        }
    }
    assert_eq!(
        variables["unused"],
        Tensor::ones([2], (Kind::Float, Device::Cpu))
    );
}

#[test]
fn steps_are_pytorchs() {
    for case in cases() {
        let store = parameters();
        let mut optimiser = Optimiser::default();
        optimiser.add("module", &store, training(&case));
        for (at, expected) in case["after"].as_array().unwrap().iter().enumerate() {
            step(&mut optimiser, &store, at);
            check(&store, expected, &format!("{} step {at}", case["rule"]));
        }
    }
}

#[test]
fn a_restored_state_goes_on_as_if_nothing_had_been() {
    for case in cases() {
        let after = case["after"].as_array().unwrap();
        let store = parameters();
        let mut first = Optimiser::default();
        first.add("module", &store, training(&case));
        (0..3).for_each(|at| step(&mut first, &store, at));
        let state: BTreeMap<String, Tensor> = first
            .state()
            .into_iter()
            .map(|(name, tensor)| (name, tensor.copy()))
            .collect();
        let mut second = Optimiser::default();
        second.add("module", &store, training(&case));
        second.restore(state);
        for (at, expected) in after.iter().enumerate().skip(3) {
            step(&mut second, &store, at);
            check(
                &store,
                expected,
                &format!("{} resumed, step {at}", case["rule"]),
            );
        }
    }
}

#[test]
fn a_state_that_was_restored_and_not_used_is_kept() {
    let store = parameters();
    let mut optimiser = Optimiser::default();
    let rule = Rule::Sgd { momentum: 0.9 };
    optimiser.add(
        "module",
        &store,
        Training {
            rule,
            lr: 1.0,
            weight_decay: 0.0,
        },
    );
    let velocity = numbers("velocity", &[3, 4]);
    optimiser.restore([("module/weight".to_string(), velocity.copy())].into());
    assert_eq!(optimiser.state(), [("module/weight".to_string(), velocity)]);
}

#[test]
fn only_the_modules_that_are_named_are_updated() {
    let (one, other) = (parameters(), parameters());
    let mut optimiser = Optimiser::default();
    let rule = Rule::Sgd { momentum: 0.9 };
    for (name, store) in [("one", &one), ("other", &other)] {
        optimiser.add(
            name,
            store,
            Training {
                rule,
                lr: 1.0,
                weight_decay: 0.1,
            },
        );
    }
    let before = other.variables()["weight"].copy();
    let both = loss(&one, 0) + loss(&other, 0);
    optimiser.zero_grad();
    optimiser.backward(&both, &["one"]);
    optimiser.step(&["one"], 0.1);
    assert_eq!(other.variables()["weight"], before);
    assert_ne!(one.variables()["weight"], before);
}

#[test]
fn a_module_drawn_anew_begins_without_a_past() {
    let case = &cases()[0];
    let store = parameters();
    let mut optimiser = Optimiser::default();
    optimiser.add("module", &store, training(case));
    (0..3).for_each(|at| step(&mut optimiser, &store, at));
    let fresh = parameters();
    optimiser.reset("module", &fresh);
    step(&mut optimiser, &fresh, 0);
    check(&fresh, &case["after"][0], "after a reset");
}
