use cohort_protocol::loss::Epsilon;
use proptest::prelude::*;

use super::*;
use crate::compute::{
    compute,
    noise::{mechanism, release},
    statistic::terms,
};

fn draws(sensitivity: i64, share: &str, count: usize) -> Vec<i64> {
    release(Statistic { sensitivity, share: share.parse().unwrap(), values: vec![0; count] }).unwrap()
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
            let loss = mechanism(sensitivity, share).unwrap().map(&sensitivity).unwrap();
            // Below the double nearest to the share means at most the exact decimal share.
            assert!(loss < share.as_f64(), "{loss} for {share}");
            assert!(loss > share.as_f64() * 0.999_999, "{loss} wastes {share}");
        }
    }
}

#[test]
fn the_studys_mechanisms_add_up_to_its_epsilon() {
    let recipe = study();
    let mut nano = 0;
    let mut loss = 0.0;
    for statistic in exact(&recipe, patients()).into_iter().flatten() {
        nano += statistic.share.0;
        loss +=
            mechanism(statistic.sensitivity, statistic.share).unwrap().map(&statistic.sensitivity).unwrap();
    }
    assert_eq!(nano, 1_500_000_000);
    assert!(loss <= 1.5, "{loss}");
}

#[test]
fn two_runs_on_the_same_data_differ() {
    let recipe = study();
    let outputs: Vec<_> = (0..2).map(|_| compute(&recipe, patients()).unwrap().value().clone()).collect();
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

    /// What [`Statistic`] claims and all accounting rests on: without one person's rows, one cell of each
    /// statistic changes, by at most the sensitivity.
    #[test]
    fn one_person_changes_one_cell_by_at_most_the_sensitivity(
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
            let declared: Vec<_> = with.iter().map(|statistic| (statistic.sensitivity, statistic.share)).collect();
            prop_assert_eq!(declared, terms(&recipe, measure));
            for (with, without) in with.iter().zip(without) {
                let changes: Vec<i64> = with.values.iter().zip(&without.values).map(|(a, b)| (a - b).abs()).collect();
                let l1: i64 = changes.iter().sum();
                prop_assert!(l1 <= with.sensitivity, "{} changes {changes:?}", measure.name);
                prop_assert!(changes.iter().filter(|change| **change > 0).count() <= 1);
            }
        }
    }
}
