//! The cohort directory: each consortium against three criteria, from on-chain facts alone. The rules are in
//! `docs/spec/indexer-api.md`, section "Cohorts".

use std::collections::BTreeSet;

use alloy::primitives::Address;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{answer::CurrentDatasets, error::ApiError, query::Parameters};
use crate::{
    event::AppEvent,
    schema as s,
    store::Recorded,
    value::{Grade, Jurisdiction, Name},
    view::{AppState, OwnerState},
};

/// Owners that make a cohort, and that must have data in it.
const ENOUGH_OWNERS: usize = 3;
/// Jurisdictions, or regions, that make it multi-jurisdiction.
const ENOUGH_JURISDICTIONS: usize = 2;
/// Grades that protect data about persons.
const PERSONAL_DATA_GRADES: u16 = Grade::Hipaa.bit() | Grade::Gdpr.bit() | Grade::UkGdpr.bit();

/// How far a consortium meets a criterion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Met {
    /// Fully.
    Match,
    /// In part.
    Partial,
    /// Not.
    Miss,
}

impl Met {
    fn of(fully: bool, in_part: bool) -> Self {
        match (fully, in_part) {
            (true, _) => Self::Match,
            (false, true) => Self::Partial,
            (false, false) => Self::Miss,
        }
    }
}

/// The three criteria of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Criteria {
    /// At least three owners: match if three listed owners have a dataset in force, partial if three are listed.
    pub owners: Met,
    /// Several jurisdictions: match if listed owners are in two, partial if datasets in force are in two regions.
    pub jurisdictions: Met,
    /// HIPAA, GDPR or UK-GDPR grade: match if every listed owner has one, partial if any has.
    pub grades: Met,
}

/// Whether a consortium can compute now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CohortStatus {
    /// A proposal is live at the head and at the confirmed position.
    Live,
    /// None is.
    Forming,
}

/// A consortium in the directory.
#[derive(Debug, Serialize, ToSchema)]
pub struct Cohort {
    /// Its contract.
    #[schema(value_type = s::Address)]
    pub app: Address,
    /// Display name.
    #[schema(value_type = Option<s::Label>)]
    pub name: Option<Name>,
    /// Display sector.
    #[schema(value_type = Option<s::Label>)]
    pub sector: Option<Name>,
    /// Number of listed owners.
    pub owners: usize,
    /// Approvals that a new proposal needs.
    pub threshold: u8,
    /// Number of datasets in force.
    pub datasets: usize,
    /// Records behind them: the largest dataset in force of each listed owner; withheld numbers count as 0.
    pub records: u64,
    /// Size in bytes of the sealed files in force.
    pub size_bytes: u64,
    /// Where listed owners are, ascending.
    #[schema(value_type = Vec<s::Jurisdiction>)]
    pub jurisdictions: Vec<Jurisdiction>,
    /// Grades that every listed owner has.
    pub grades: Vec<String>,
    /// Where the datasets in force are, ascending.
    #[schema(value_type = Vec<s::Label>)]
    pub regions: Vec<Name>,
    /// What the datasets in force are, ascending.
    #[schema(value_type = Vec<s::Label>)]
    pub kinds: Vec<Name>,
    /// How far it meets the criteria.
    pub criteria: Criteria,
    /// Whether it can compute now.
    pub status: CohortStatus,
}

impl Cohort {
    /// From the configuration, the registrations of datasets, and whether a proposal is live.
    pub(super) fn of(app: Address, state: &AppState, rows: &[Recorded<AppEvent>], live: bool) -> Self {
        let owners: Vec<&OwnerState> = state.listed().collect();
        let current = CurrentDatasets::of(state, rows);
        let with_data: BTreeSet<u8> = current.datasets.iter().map(|(owner, _)| *owner).collect();
        let regions: BTreeSet<Name> = current.datasets.iter().map(|(_, info)| info.region).collect();
        let kinds: BTreeSet<Name> = current.datasets.iter().map(|(_, info)| info.kind).collect();
        let jurisdictions: BTreeSet<Jurisdiction> = owners.iter().map(|owner| owner.jurisdiction).collect();
        let in_common = owners.iter().map(|owner| owner.grades).reduce(|a, b| a & b).unwrap_or(0);
        Self {
            app,
            name: state.name,
            sector: state.sector,
            owners: owners.len(),
            threshold: state.threshold,
            datasets: current.datasets.len(),
            records: current.records(),
            size_bytes: current.datasets.iter().fold(0, |sum, (_, info)| sum.saturating_add(info.size_bytes)),
            criteria: Criteria {
                owners: Met::of(with_data.len() >= ENOUGH_OWNERS, owners.len() >= ENOUGH_OWNERS),
                jurisdictions: Met::of(
                    jurisdictions.iter().filter(|place| place.is_code()).count() >= ENOUGH_JURISDICTIONS,
                    regions.len() >= ENOUGH_JURISDICTIONS,
                ),
                grades: graded(&owners),
            },
            jurisdictions: jurisdictions.into_iter().collect(),
            grades: crate::value::grade_names(in_common),
            regions: regions.into_iter().collect(),
            kinds: kinds.into_iter().collect(),
            status: if live { CohortStatus::Live } else { CohortStatus::Forming },
        }
    }
}

fn graded(owners: &[&OwnerState]) -> Met {
    let with = owners.iter().filter(|owner| owner.grades & PERSONAL_DATA_GRADES != 0).count();
    Met::of(!owners.is_empty() && with == owners.len(), with > 0)
}

/// What of the directory is asked for.
#[derive(Debug, Default)]
pub(super) struct Filter {
    owners: Option<Met>,
    jurisdictions: Option<Met>,
    grades: Option<Met>,
    status: Option<CohortStatus>,
}

impl Filter {
    pub(super) fn from_query(query: &Parameters) -> Result<Self, ApiError> {
        Ok(Self {
            owners: query.one_of("owners", "match, partial, miss")?,
            jurisdictions: query.one_of("jurisdictions", "match, partial, miss")?,
            grades: query.one_of("grades", "match, partial, miss")?,
            status: query.one_of("status", "live, forming")?,
        })
    }

    pub(super) fn admits(&self, cohort: &Cohort) -> bool {
        let criteria = &cohort.criteria;
        self.owners.is_none_or(|met| met == criteria.owners)
            && self.jurisdictions.is_none_or(|met| met == criteria.jurisdictions)
            && self.grades.is_none_or(|met| met == criteria.grades)
            && self.status.is_none_or(|status| status == cohort.status)
    }
}
