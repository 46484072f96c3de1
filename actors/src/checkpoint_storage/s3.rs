//! How a bucket is reached: by what the environment says of endpoint, region and credentials.

use super::{ObjectStorage, S3};
use object_store::aws::AmazonS3Builder;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use std::time::Duration;
use tidegate_engine::checkpoint::{Error, Result};

/// How long a request is tried again before its checkpoint is declined.
const RETRIES: Duration = Duration::from_secs(20);

/// The storage of `s3://bucket/folder`. The names of the variables that it goes by begin with `AWS_`, as those of
/// Amazon's own tools do.
pub fn open(place: &str) -> Result<ObjectStorage> {
    let bad = |reason| Error::BadPath {
        path: place.to_owned(),
        reason,
    };
    let path = place
        .strip_prefix(S3)
        .ok_or_else(|| bad("it does not begin with s3://"))?;
    let (bucket, folder) = path.split_once('/').unwrap_or((path, ""));
    if bucket.is_empty() {
        return Err(bad("it names no bucket: give s3://BUCKET/FOLDER"));
    }
    // The first one to be set stays, and any is good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 10,
        retry_timeout: RETRIES,
    };
    let mut options = ClientOptions::new().with_connect_timeout(Duration::from_secs(5));
    if endpoint_is_plain() {
        options = options.with_allow_http(true);
    }
    let store = AmazonS3Builder::from_env()
        .with_client_options(options)
        .with_bucket_name(bucket)
        .with_retry(retry)
        .build()
        .map_err(|error| Error::Failed {
            action: "open",
            path: place.to_owned(),
            reason: error.to_string(),
            advice: "check the variables of the environment that begin with AWS_",
        })?;
    let storage = ObjectStorage::new(store, format!("{S3}{bucket}"))?;
    Ok(match folder.trim_matches('/') {
        "" => storage,
        folder => storage.below(folder),
    })
}

/// Whether the endpoint that was named wants no TLS; where none is named there always is TLS.
fn endpoint_is_plain() -> bool {
    let named = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let named = named.iter().find_map(|name| std::env::var(name).ok());
    let allowed = std::env::var("AWS_ALLOW_HTTP").is_ok_and(|v| v.eq_ignore_ascii_case("true"));
    allowed || named.is_some_and(|endpoint| endpoint.starts_with("http://"))
}
