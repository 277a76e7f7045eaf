//! What each target demands of evidence: a machine of the development platform is the only one that is trusted, so that
//! whatever verifies says what that machine said. Coverage-guided fuzzing calls it, and the smoke of `cli/tests/fuzz_smoke.rs`.
#![allow(dead_code)] // each user takes a part of it

use std::sync::LazyLock;

use cohort_attestation::{
    AppId, Collateral, Policy, TrustedRoot,
    boot::BootIdentity,
    collateral,
    dev::{DevGpus, DevGuest, DevPlatform, QuoteVersion},
    event_log,
    gpu::{self, GpuEvidence, GpuRoot, rim},
    verify_quote,
};

const NOW: u64 = 1_800_000_000;
const REPORT_DATA: [u8; 64] = [7; 64];
const NONCE: [u8; 32] = [7; 32];
/// Bytes of the signature at the end of a GPU's report. It is malleable.
const GPU_SIGNATURE: usize = 96;

static MACHINE: LazyLock<Machine> = LazyLock::new(|| Machine::new().expect("the development platform"));

/// The machine, and what it says.
pub(crate) struct Machine {
    guest: DevGuest,
    policy: Policy,
    quotes: [Vec<u8>; 2],
    collateral: Collateral,
    gpus: DevGpus,
    gpu: GpuEvidence,
    gpu_root: GpuRoot,
    rim_root: rim::RimRoot,
}

impl Machine {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let platform = DevPlatform::from_seed([1; 32])?;
        let policy =
            Policy::production().with_root(TrustedRoot::development(&platform.root_certificate_der()?)?);
        let guest = DevGuest::with_gpus(platform.clone(), AppId([2; 20]), "{}", &[3; 32], 1)?;
        let quote = |version| platform.quote_of(version, guest.measurements(), &REPORT_DATA);
        let gpus = DevGpus::of_platform(&platform, 1)?;
        Ok(Self {
            quotes: [quote(QuoteVersion::V4)?, quote(QuoteVersion::V5)?],
            collateral: platform.collateral(NOW)?,
            gpu: gpus.evidence(&NONCE)?.remove(0),
            gpu_root: GpuRoot::development(&gpus.root_certificate_der()?)?,
            rim_root: rim::RimRoot::development(&gpus.rim_root_certificate_der()?)?,
            policy,
            guest,
            gpus,
        })
    }

    fn reports_this(&self, report: &[u8]) -> bool {
        let signed = |report: &[u8]| report[..report.len() - GPU_SIGNATURE].to_vec();
        signed(report) == signed(&self.gpu.report)
    }
}

/// The seeds of each target, by the name of the file.
pub(crate) fn seeds() -> [(&'static str, Vec<u8>); 9] {
    let machine = &*MACHINE;
    let log = machine.guest.event_log_json();
    let [driver, vbios] = machine.gpus.manifests().expect("the development platform");
    let collateral = serde_json::to_vec(&machine.collateral).expect("it is plain data");
    [
        ("quote/v4", machine.quotes[0].clone()),
        ("quote/v5", machine.quotes[1].clone()),
        ("event_log/v1.json", log.as_bytes().to_vec()),
        (
            "event_log/v2.json",
            log.replace(r#""event_type":134217729"#, r#""version":2,"event_type":134217729"#).into(),
        ),
        ("collateral/valid.json", collateral),
        ("gpu_report/one", machine.gpu.report.clone()),
        ("gpu_collected/one.json", machine.gpus.collected(&NONCE).expect("the development platform")),
        ("rim/driver.swidtag", driver.into_bytes()),
        ("rim/vbios.swidtag", vbios.into_bytes()),
    ]
}

/// As a quote: refused, or it says what the machine's own say.
pub(crate) fn quote(data: &[u8]) {
    let machine = &*MACHINE;
    let verify = |quote: &[u8]| verify_quote(quote, &machine.collateral, &machine.policy, NOW);
    if let Ok(claims) = verify(data) {
        let own = machine.quotes.each_ref().map(|quote| verify(quote).expect("its own").report);
        assert!(own.contains(&claims.report));
    }
}

/// As an event log: refused, or exactly one of each identity event, before the end of the boot.
pub(crate) fn log(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(events) = event_log::parse(text) else { return };
    assert_eq!(event_log::replay(&events).event_counts().iter().sum::<usize>(), events.len());
    let Ok(identity) = BootIdentity::read(&events) else { return };
    let payload = |name: &str| {
        let named =
            |event: &&event_log::Event| event.imr() == 3 && event.name().split(':').next() == Some(name);
        let [only] = events.iter().filter(named).collect::<Vec<_>>()[..] else {
            panic!("{name} is there again")
        };
        only.payload()
    };
    assert_eq!(identity.app_id.as_bytes()[..], *payload("app-id"));
    assert_eq!(identity.compose_hash.as_bytes()[..], *payload("compose-hash"));
    assert!(identity.instance_id.is_some() != payload("instance-id").is_empty());
    assert!(payload("boot-mr-done").is_empty() && payload("system-ready").is_empty());
    assert!(!payload("key-provider").is_empty());
}

/// As collateral: refused, or it is the machine's, and `NOW` lies in its window, where that can be read: the verifier
/// passes over text around the certificates.
pub(crate) fn collateral(data: &[u8]) {
    let machine = &*MACHINE;
    let Ok(collateral) = serde_json::from_slice::<Collateral>(data) else { return };
    let (window, family) = (collateral::window(&collateral), collateral::family_of(&collateral));
    if verify_quote(&machine.quotes[0], &collateral, &machine.policy, NOW).is_ok() {
        assert!(window.map_or(true, |window| window.contains(NOW)));
        assert_eq!(family, collateral::family_of_quote(&machine.quotes[0]));
    }
}

/// As the report of a GPU: refused, or the GPU's own.
pub(crate) fn gpu_report(data: &[u8]) {
    let machine = &*MACHINE;
    let evidence = GpuEvidence { report: data.to_vec(), ..machine.gpu.clone() };
    if gpu::verify(&evidence, &machine.gpu_root, &NONCE, NOW).is_ok() {
        assert!(machine.reports_this(data));
    }
}

/// As what NVIDIA's collector prints: refused, or every GPU in it is the machine's.
pub(crate) fn gpu_collected(data: &[u8]) {
    let machine = &*MACHINE;
    let Ok(gpus) = GpuEvidence::from_collected(data) else { return };
    for evidence in gpus.iter().take(2) {
        if gpu::verify(evidence, &machine.gpu_root, &NONCE, NOW).is_ok() {
            assert!(machine.reports_this(&evidence.report));
        }
    }
}

/// As a reference manifest: refused, or the values of one that the machine's signer signed.
pub(crate) fn manifest(data: &[u8]) {
    let machine = &*MACHINE;
    let read = |xml: &[u8]| rim::read(xml, &machine.rim_root, NOW);
    if let Ok(manifest) = read(data) {
        let own = machine.gpus.manifests().expect("the development platform");
        let own = own.map(|xml| read(xml.as_bytes()).expect("its own"));
        assert!(
            own.iter().any(|own| own.tag_id == manifest.tag_id && own.measurements == manifest.measurements)
        );
    }
}
