//! Addresses of objects in S3 or a store that speaks like it: signed for one `GET`, with credentials that only the
//! environment gives and that nothing prints.

use std::{fmt, time::Duration};

use object_store::{
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
    signer::Signer as _,
};
use reqwest::{Method, Url};
use zeroize::Zeroizing;

/// How long a signed address may be used to begin a download.
const VALID: Duration = Duration::from_secs(300);

/// Credentials and place of a store, by the names that AWS's own tools read.
#[derive(Clone, Default)]
pub struct Access {
    key_id: Option<String>,
    secret: Option<Zeroizing<String>>,
    token: Option<Zeroizing<String>>,
    region: Option<String>,
    endpoint: Option<String>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

impl Access {
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION` (or `AWS_DEFAULT_REGION`) and
    /// `AWS_ENDPOINT_URL_S3` (or `AWS_ENDPOINT_URL`), as `variable` gives them. Nothing else is asked: no file and no
    /// metadata service, which would be the host.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        Self {
            key_id: variable("AWS_ACCESS_KEY_ID"),
            secret: variable("AWS_SECRET_ACCESS_KEY").map(Zeroizing::new),
            token: variable("AWS_SESSION_TOKEN").map(Zeroizing::new),
            region: variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")),
            endpoint: variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL")),
        }
    }

    /// The bucket of `s3://BUCKET/PREFIX/`. Errors are texts without credentials.
    pub(super) fn bucket(&self, base: &Url) -> Result<Bucket, String> {
        let name = base.host_str().ok_or("an s3:// address names a bucket")?;
        let (Some(key_id), Some(secret)) = (&self.key_id, &self.secret) else {
            return Err("s3:// needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment; \
                        a public bucket also has an https:// address"
                .to_owned());
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(name)
            .with_region(self.region.as_deref().unwrap_or("us-east-1"))
            .with_access_key_id(key_id)
            .with_secret_access_key(secret.as_str());
        if let Some(token) = &self.token {
            builder = builder.with_token(token.as_str());
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let store = builder.build().map_err(|e| e.to_string())?;
        Ok(Bucket { store, prefix: base.path().trim_matches('/').to_owned() })
    }
}

/// A folder in a bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    store: AmazonS3,
    prefix: String,
}

impl Bucket {
    /// An address from which `name` can be read for some minutes: AWS Signature Version 4 in the query.
    pub(super) async fn address(&self, name: &str) -> Result<Url, String> {
        let path = Path::from(format!("{}/{name}", self.prefix));
        self.store.signed_url(Method::GET, &path, VALID).await.map_err(|e| e.to_string())
    }
}
