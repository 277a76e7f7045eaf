use cohort_protocol::loss::Epsilon;
use proptest::prelude::*;

use super::*;
use crate::compute::{
    compute_at_once,
    noise::{Accountant, gaussian, laplace},
    statistic::{Mechanism, Term, terms},
};

fn draws(sensitivity: i64, share: &str, count: usize) -> Vec<i64> {
    around(0, sensitivity, share, count)
}

fn around(value: i64, sensitivity: i64, share: &str, count: usize) -> Vec<i64> {
    let (mechanism, share) = (Mechanism::Additive, share.parse().unwrap());
    let (l1, l2, values) = (sensitivity, sensitivity, vec![value; count]);
    release(Statistic { mechanism, l1, l2, share, width: 1, values }).unwrap()
}

/// With Laplace noise.
fn release(statistic: Statistic) -> Result<Vec<i64>, crate::compute::ComputeError> {
    Accountant::of(study().privacy()).unwrap().release(statistic)
}

/// Mean, variance and shape of the sampler against the discrete Laplace distribution with parameter
/// a = exp(-epsilon / sensitivity): variance 2a / (1-a)^2, P(0) = (1-a) / (1+a), P(k) = P(0) a^|k|.
fn check_distribution(sensitivity: i64, share: &str) {
    const DRAWS: usize = 12_000;
    let n = DRAWS as f64;
    let a = (-share.parse::<Epsilon>().unwrap().as_f64() / sensitivity as f64).exp();
    let variance = 2.0 * a / (1.0 - a).powi(2);
    let values = draws(sensitivity, share, DRAWS);

    let mean = values.iter().map(|x| *x as f64).sum::<f64>() / n;
    assert!(mean.abs() < 6.0 * (variance / n).sqrt(), "mean {mean}");
    let second = values.iter().map(|x| (*x as f64).powi(2)).sum::<f64>() / n;
    // The fourth moment is below 6 variance^2 + variance; six standard errors.
    let error = ((5.0 * variance.powi(2) + variance) / n).sqrt();
    assert!((second - variance).abs() < 6.0 * error, "variance {second}, expected {variance}");

    // Chi-square over bins of |x|: 0, then widths of about a tenth of the tail each.
    let width = (0.3 * (variance / 2.0).sqrt()).ceil() as i64;
    let mut chi = 0.0;
    let mut rest = (DRAWS, 1.0);
    for bin in 0..12 {
        let (low, high) = if bin == 0 { (0, 1) } else { ((bin - 1) * width + 1, bin * width + 1) };
        let p0 = (1.0 - a) / (1.0 + a);
        let tail = |k: i64| if k == 0 { 1.0 } else { 2.0 * p0 * a.powi(k as i32) / (1.0 - a) };
        let expected = tail(low) - tail(high);
        let seen = values.iter().filter(|x| (low..high).contains(&x.abs())).count();
        chi += (seen as f64 - n * expected).powi(2) / (n * expected);
        rest = (rest.0 - seen, rest.1 - expected);
    }
    chi += (rest.0 as f64 - n * rest.1).powi(2) / (n * rest.1);
    // 12 degrees of freedom: P(chi2 > 55) is below 2e-7.
    assert!(chi < 55.0, "chi-square {chi}");

    // Sign: as many above as below, six standard errors.
    let (above, below) =
        (values.iter().filter(|x| **x > 0).count(), values.iter().filter(|x| **x < 0).count());
    assert!((above as f64 - below as f64).abs() < 6.0 * n.sqrt(), "{above} above, {below} below");
}

#[test]
fn the_sampler_follows_the_discrete_laplace_distribution() {
    check_distribution(1, "0.2");
    check_distribution(1, "1");
    check_distribution(70, "0.25");
}

#[test]
fn opendp_agrees_that_each_mechanism_stays_within_its_share() {
    let shares = ["0.000001", "0.1", "0.2", "0.3", "0.333333333", "1", "1.5", "7", "18446744073"];
    for share in shares {
        let share: Epsilon = share.parse().unwrap();
        for sensitivity in [1, 3, 70, 200, 1_000_000_007, 2_000_000_000_000_000] {
            let limit = share.as_f64() * (1.0 - 1e-12);
            let loss = laplace(sensitivity, limit).unwrap().map(&sensitivity).unwrap();
            // Below the double nearest to the share means at most the exact decimal share.
            assert!(loss < share.as_f64(), "{loss} for {share}");
            assert!(loss > share.as_f64() * 0.999_999, "{loss} wastes {share}");
        }
    }
}

#[test]
fn opendp_s_accountant_agrees_with_what_the_recipe_declares() {
    for recipe in [study(), every_kind()] {
        let account = crate::compute::account(&recipe).unwrap();
        let declared = recipe.epsilon_per_run().as_f64();
        assert!(account.total <= declared && account.total > declared * 0.999_999, "{account:?}");
        for (loss, measure) in account.measures.iter().zip(recipe.measures()) {
            let share = measure.kind.epsilon().unwrap().as_f64();
            assert!(*loss <= share && *loss > share * 0.999_999, "{}: {loss} of {share}", measure.name);
        }
    }
}

/// Mironov's attack reads the low bits of a noisy double: some outputs are possible for one of two neighbours only.
/// On integers every output near either is possible for both, and far from 0 nothing is rounded away.
#[test]
fn no_low_bit_tells_neighbours_apart() {
    let (zero, one) = (around(0, 1, "0.5", 4000), around(1, 1, "0.5", 4000));
    for value in -4..=5 {
        assert!(zero.contains(&value) && one.contains(&value), "{value} is an output of one of them only");
    }
    // As doubles, numbers near 2^60 are multiples of 256.
    let large = around(1 << 60, 1, "0.5", 4000);
    let odd = large.iter().filter(|value| *value % 2 != 0).count() as f64;
    // P(odd) = 2a / (1+a)^2 with a = exp(-0.5), six standard errors of 4000 draws.
    let a = (-0.5f64).exp();
    let expected = 4000.0 * 2.0 * a / (1.0 + a).powi(2);
    assert!((odd - expected).abs() < 6.0 * (4000.0f64 / 4.0).sqrt(), "{odd}, expected {expected}");
    // A wide scale leaves no output out either: every residue comes, evenly (chi-square, 69 degrees of freedom).
    let wide = around(0, 70, "0.2", 14_000);
    let mut residues = [0.0f64; 70];
    wide.iter().for_each(|value| residues[value.rem_euclid(70) as usize] += 1.0);
    let chi: f64 = residues.iter().map(|seen| (seen - 200.0).powi(2) / 200.0).sum();
    assert!(chi < 150.0, "chi-square {chi}");
}

/// Gaussian noise against the discrete Gaussian distribution: P(k) is proportional to exp(-k^2 / (2 scale^2)).
#[test]
fn the_sampler_follows_the_discrete_gaussian_distribution() {
    const DRAWS: usize = 12_000;
    for (l2, rho) in [(1, 0.5), (1, 0.02), (70, 0.1)] {
        let scale = f64::from(l2) / (2.0f64 * rho).sqrt();
        let mechanism = gaussian(l2.into(), rho).unwrap();
        let values = mechanism.invoke(&vec![0; DRAWS]).unwrap();
        let weight = |k: i64| (-(k as f64).powi(2) / (2.0 * scale.powi(2))).exp();
        let reach = (12.0 * scale) as i64 + 2;
        let total: f64 = (-reach..=reach).map(weight).sum();
        let width = (0.4 * scale).ceil() as i64;
        let (mut chi, mut bins) = (0.0, 0u32);
        // Bins of a width either side of the middle one, those in the tail together.
        let edges: Vec<i64> = (-5..=5).map(|bin| bin * width).collect();
        let bin_of = |value: i64| edges.partition_point(|edge| *edge <= value);
        let mut expected = vec![0.0; edges.len() + 1];
        let mut seen = vec![0.0; edges.len() + 1];
        (-reach..=reach).for_each(|k| expected[bin_of(k)] += DRAWS as f64 * weight(k) / total);
        values.iter().for_each(|value| seen[bin_of(*value)] += 1.0);
        for (expected, seen) in expected.iter().zip(&seen).filter(|(expected, _)| **expected > 5.0) {
            chi += (seen - expected).powi(2) / expected;
            bins += 1;
        }
        // At most 12 bins: P(chi2 > 60) with 12 degrees of freedom is below 3e-8.
        assert!(bins >= 5 && chi < 60.0, "chi-square {chi} in {bins} bins");
    }
}

/// The recipe of every kind with Gaussian noise.
fn gaussian_recipe() -> Recipe {
    let mut section = every_kind_section();
    section["privacy"] = json!({ "unit": "id", "epsilon_per_run": "9", "epsilon_budget": "18", "noise": "gaussian",
                                 "delta": "0.000001", "delta_budget": "0.000002" });
    Recipe::parse(&section).unwrap()
}

/// OpenDP's own composition and conversion of all mechanisms, against the declared epsilon and delta.
#[test]
fn gaussian_noise_costs_what_the_recipe_declares() {
    let recipe = gaussian_recipe();
    let account = crate::compute::account(&recipe).unwrap();
    assert!(account.total <= 9.0 && account.total > 8.99, "{account:?}");
    // Together they cost less than the sum of each alone: that is what the other accounting is for.
    assert!(account.measures.iter().sum::<f64>() > 1.5 * account.total, "{account:?}");
    let output =
        compute_at_once(&recipe, vec![input("a", "id,group,amount,flag\np,x,1,true\n")], None).unwrap();
    crate::compute::guard(&recipe, output.value()).unwrap();
}

/// A mechanism that is given more than the recipe has is refused by the accountant, not by trust in the shares.
#[test]
fn a_smaller_delta_means_more_noise() {
    let term = terms(&gaussian_recipe(), &gaussian_recipe().measures()[0])[0];
    let scale = |delta: u64| {
        let mut privacy = *gaussian_recipe().privacy();
        privacy.delta_per_run = cohort_protocol::loss::Delta(delta);
        Accountant::of(&privacy).unwrap().scale(&term)
    };
    assert!(scale(1_000_000) > 1.2 * scale(1_000_000_000_000));
}

/// Two candidates whose scores differ by d: with exponential noise of scale b the worse one wins with probability
/// exp(-d / b) / 2.
#[test]
fn the_selection_follows_its_distribution() {
    const DRAWS: usize = 8000;
    for gap in [0, 1, 2, 4] {
        let scores: Vec<i64> = [0, gap].repeat(DRAWS);
        let (mechanism, share) = (Mechanism::LeastScore, "1".parse().unwrap());
        let picked = release(Statistic { mechanism, l1: 1, l2: 1, share, width: 2, values: scores }).unwrap();
        let worse = picked.iter().filter(|index| **index == 1).count() as f64;
        let expected = DRAWS as f64 * (-gap as f64 / 2.0).exp() / 2.0;
        assert!(
            (worse - expected).abs() < 6.0 * (DRAWS as f64 / 4.0).sqrt(),
            "gap {gap}: {worse}, {expected}"
        );
    }
}

/// What an attacker who knows everybody else sees: whether one person is in the data. For each event the frequency
/// with the person is at most e^epsilon times that without, and the other way round, up to sampling error.
#[test]
fn membership_shows_no_more_than_epsilon_allows() {
    const RUNS: usize = 3000;
    let recipe = every_kind_with(&["n", "q"]);
    let epsilon = recipe.epsilon_per_run().as_f64();
    let others: String = (0..30).map(|id| format!("p{id},x,{},true\n", f64::from(id) / 10.0)).collect();
    let table = |rows: &str| vec![input("a", &format!("id,group,amount,flag\n{rows}"))];
    let with = exact(&recipe, table(&format!("{others}victim,x,4,true\n")));
    let without = exact(&recipe, table(&others));
    let outputs = |statistics: &[Vec<Statistic>]| -> Vec<Vec<i64>> {
        let all = |statistics: Vec<Vec<Statistic>>| -> Vec<i64> {
            statistics.into_iter().flatten().flat_map(|statistic| release(statistic).unwrap()).collect()
        };
        (0..RUNS).map(|_| all(statistics.to_vec())).collect()
    };
    let (with, without) = (outputs(&with), outputs(&without));
    let mut largest = 0.0f64;
    for threshold in 28..34 {
        for quantile in 8..14 {
            let event = |output: &&Vec<i64>| output[0] >= threshold && output[2] >= quantile;
            let frequency = |outputs: &[Vec<i64>]| outputs.iter().filter(event).count() as f64 / RUNS as f64;
            let (p, q) = (frequency(&with), frequency(&without));
            let slack = 5.0 * (0.25 / RUNS as f64).sqrt();
            for (p, q) in [(p, q), (q, p), (1.0 - p, 1.0 - q), (1.0 - q, 1.0 - p)] {
                assert!(p <= epsilon.exp() * q + slack * (1.0 + epsilon.exp()), "{p} against {q}");
                largest = largest.max(p / q.max(0.01));
            }
        }
    }
    // The attack is no straw man: it does see a difference.
    assert!(largest > 1.1, "{largest}");
}

#[test]
fn two_runs_on_the_same_data_differ() {
    let recipe = study();
    let outputs: Vec<_> =
        (0..2).map(|_| compute_at_once(&recipe, patients(), None).unwrap().value().clone()).collect();
    assert_ne!(outputs[0], outputs[1]);
}

/// One row of `every_kind`'s table, valid or not.
fn row() -> impl Strategy<Value = String> {
    let id = 0..12u8;
    let group = prop_oneof![Just("x"), Just("y"), Just("none"), Just("z"), Just("")];
    let amount = prop_oneof![
        (-6.0..6.0f64).prop_map(|x| x.to_string()),
        any::<f64>().prop_map(|x| x.to_string()),
        Just(String::new()),
        Just("-1".to_owned()),
        "[ -~&&[^,\"\n]]{0,6}",
    ];
    let flag = prop_oneof![Just("true"), Just("false"), Just("?"), Just("")];
    (id, group, amount, flag).prop_map(|(id, group, amount, flag)| format!("p{id},{group},{amount},{flag}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// What [`Statistic`] claims and all accounting rests on: without one person's rows, one group of each statistic
    /// changes, by at most the sensitivity.
    #[test]
    fn one_person_changes_one_group_by_at_most_the_sensitivity(
        rows in prop::collection::vec(row(), 0..40),
        person in 0..12u8,
    ) {
        let recipe = every_kind();
        let table = |keep: &dyn Fn(&&String) -> bool| {
            let rows: String = rows.iter().filter(keep).map(|row| format!("{row}\n")).collect();
            vec![input("a", &format!("id,group,amount,flag\n{rows}"))]
        };
        let prefix = format!("p{person},");
        let with = exact(&recipe, table(&|_| true));
        let without = exact(&recipe, table(&|row| !row.starts_with(&prefix)));
        for ((with, without), measure) in with.iter().zip(&without).zip(recipe.measures()) {
            let declared: Vec<_> = with.iter().map(|of| Term {
                mechanism: of.mechanism, l1: of.l1, l2: of.l2, share: of.share, width: of.width,
            }).collect();
            prop_assert_eq!(declared, terms(&recipe, measure));
            for (with, without) in with.iter().zip(without) {
                let changes: Vec<i64> = with.values.iter().zip(&without.values).map(|(a, b)| (a - b).abs()).collect();
                let groups = changes.chunks(with.width).filter(|group| group.iter().any(|change| *change > 0));
                prop_assert!(groups.count() <= 1, "{} changes {changes:?}", measure.name);
                let moved: i64 = match with.mechanism {
                    Mechanism::Additive => changes.iter().sum(),
                    Mechanism::LeastScore => changes.iter().copied().max().unwrap_or(0),
                };
                let squares: i128 = changes.iter().map(|change| i128::from(*change).pow(2)).sum();
                let additive = with.mechanism == Mechanism::Additive;
                prop_assert!(!additive || squares <= i128::from(with.l2).pow(2), "{} in L2", measure.name);
                prop_assert!(moved <= with.l1, "{} changes {changes:?}", measure.name);
            }
        }
    }
}
