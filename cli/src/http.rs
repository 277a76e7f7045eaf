//! JSON over HTTP to our own services, with their refusals in words.

use std::time::Duration;

use cohort_protocol::release::Refusal;
use serde::{Serialize, de::DeserializeOwned};

use crate::failure::{Exit, Failure, Outcome};

/// No answer of ours is longer; a service of somebody else's must not fill the memory.
const ANSWER_MAX: usize = 64 << 20;

/// An answer: done, or accepted and under way.
pub enum Answer<T> {
    /// HTTP 200.
    Ready(T),
    /// HTTP 202, with what it tells.
    Pending(serde_json::Value),
}

/// One service.
pub struct Service<'a> {
    name: &'static str,
    base: &'a reqwest::Url,
    client: reqwest::Client,
}

impl<'a> Service<'a> {
    /// `name` is how errors call it.
    pub fn new(name: &'static str, base: &'a reqwest::Url) -> Outcome<Self> {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(60))
            .build()
            .map_err(|e| Failure::unreachable(e, "check the system's network settings"))?;
        Ok(Self { name, base, client })
    }

    /// `GET`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Outcome<Answer<T>> {
        self.answer(self.client.get(self.url(path)?)).await
    }

    /// `POST` of JSON.
    pub async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Outcome<Answer<T>> {
        self.answer(self.client.post(self.url(path)?).json(body)).await
    }

    fn url(&self, path: &str) -> Outcome<reqwest::Url> {
        self.base
            .join(path)
            .map_err(|e| Failure::input(format!("address of {}: {e}", self.name), "correct it"))
    }

    async fn answer<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Outcome<Answer<T>> {
        let down = |e: reqwest::Error| {
            Failure::unreachable(
                format!("{} at {} does not answer: {}", self.name, self.base, e.without_url()),
                "check the address, and that the service runs",
            )
        };
        let mut response = request.send().await.map_err(down)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(down)? {
            if bytes.len() + chunk.len() > ANSWER_MAX {
                return Err(Failure::unreachable(
                    format!("{} at {} answers more than {} MiB", self.name, self.base, ANSWER_MAX >> 20),
                    "check the address: is it another service?",
                ));
            }
            bytes.extend_from_slice(&chunk);
        }
        let strange = |e: serde_json::Error| {
            Failure::unreachable(
                format!("{} at {} answered something else than expected: {e}", self.name, self.base),
                "check the address: is it another service, or another version?",
            )
        };
        match status.as_u16() {
            200 => serde_json::from_slice(&bytes).map(Answer::Ready).map_err(strange),
            202 => serde_json::from_slice(&bytes).map(Answer::Pending).map_err(strange),
            _ => match serde_json::from_slice::<Refusal>(&bytes) {
                Ok(refusal) if status.as_u16() == 503 => {
                    Err(Failure { exit: Exit::Unreachable, ..refusal.into() })
                }
                Ok(refusal) => Err(refusal.into()),
                Err(_) => Err(Failure::unreachable(
                    format!("{} at {} answered HTTP {status}", self.name, self.base),
                    "check the address, and the service's log",
                )),
            },
        }
    }
}

impl<T> Answer<T> {
    /// The value, where nothing can be pending.
    pub fn ready(self, name: &str) -> Outcome<T> {
        match self {
            Self::Ready(value) => Ok(value),
            Self::Pending(_) => Err(Failure::unreachable(format!("{name} is not ready"), "try again")),
        }
    }
}
