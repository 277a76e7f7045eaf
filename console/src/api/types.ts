// Answers of the indexer, under the names that the pages use. The types are generated from docs/openapi/indexer.json.
import type { components } from "../generated/indexer";

type Schemas = components["schemas"];

export type Position = Schemas["Position"];
export type Stamp = Schemas["Stamp"];
export type OwnerRef = Schemas["OwnerRef"];
export type AppState = Schemas["App"];
export type TermsJson = Schemas["Terms"];
export type Proposal = Schemas["Proposal"];
export type Dataset = Schemas["Dataset"];
export type Run = Schemas["Run"];
export type Event = Schemas["Recorded_AppEvent"];
export type Status = Schemas["Answer_Status"];
export type Head = Schemas["Head"];
export type Kms = Schemas["Answer_Kms"];
export type Cohort = Schemas["Cohort"];
export type Met = Schemas["Met"];
