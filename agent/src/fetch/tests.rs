use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::RawQuery,
    http::{StatusCode, header},
    response::IntoResponse as _,
    routing::get,
};
use cohort_protocol::ids::OwnerId;
use futures_util::{StreamExt as _, stream};

use super::{Access, FetchError, Sources};

const SECRET: &str = "secret-that-nothing-may-show";

fn access(endpoint: Option<&str>) -> Access {
    Access::of(|name| match name {
        "AWS_ACCESS_KEY_ID" => Some("AKIDEXAMPLE".to_owned()),
        "AWS_SECRET_ACCESS_KEY" => Some(SECRET.to_owned()),
        "AWS_SESSION_TOKEN" => Some("session".to_owned()),
        "AWS_REGION" => Some("eu-central-1".to_owned()),
        "AWS_ENDPOINT_URL" => endpoint.map(str::to_owned),
        _ => None,
    })
}

fn sources(base: &str, folder: &Path, access: &Access) -> Result<Sources, FetchError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Sources::new(folder.join("none"), vec![base.parse().unwrap()], folder.join("fetched"), access)
}

/// Serves on this machine; its address.
async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

fn owner(name: &str) -> OwnerId {
    name.parse().unwrap()
}

fn files_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn a_file_of_the_web_is_streamed_to_the_owner_s_folder() {
    let body = vec![7u8; 300_000];
    let answer = body.clone();
    let base = serve(Router::new().route("/data/a.tar", get(move || async move { answer }))).await;
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(&format!("{base}/data"), folder.path(), &Access::default()).unwrap();
    let fetched = sources.fetch(&owner("a")).await.unwrap().unwrap();
    assert_eq!(std::fs::read(fetched.join("0.tar")).unwrap(), body);
    let error = sources.fetch(&owner("b")).await.unwrap_err();
    assert!(error.to_string().contains("HTTP 404") && !error.to_string().contains("127.0.0.1"), "{error}");
    let dots = sources.fetch(&owner("..")).await;
    assert!(dots.is_err() && files_in(folder.path()) == ["fetched"], "no name leads out of the folder");
}

#[tokio::test]
async fn a_file_of_an_object_store_is_asked_for_with_a_signature_and_without_the_secret() {
    let queries: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&queries);
    // Path style, as S3-compatible stores have it: bucket, then key.
    let object = get(move |RawQuery(query): RawQuery| async move {
        let query = query.unwrap_or_default();
        let signed = query.contains("X-Amz-Signature=");
        seen.lock().unwrap().push(query);
        if signed { "sealed".into_response() } else { StatusCode::FORBIDDEN.into_response() }
    });
    let base = serve(Router::new().route("/studies/cardio/hospital-A.tar", object)).await;
    let folder = tempfile::tempdir().unwrap();
    let access = access(Some(&base));
    assert!(!format!("{access:?}").contains(SECRET));
    let sources = sources("s3://studies/cardio", folder.path(), &access).unwrap();
    assert!(!format!("{sources:?}").contains(SECRET), "{sources:?}");
    let fetched = sources.fetch(&owner("hospital-A")).await.unwrap().unwrap();
    assert_eq!(std::fs::read(fetched.join("0.tar")).unwrap(), b"sealed");
    let query = queries.lock().unwrap().remove(0);
    for part in [
        "X-Amz-Algorithm=AWS4-HMAC-SHA256",
        "X-Amz-Credential=AKIDEXAMPLE%2F",
        "%2Feu-central-1%2Fs3%2Faws4_request",
        "X-Amz-Security-Token=session",
        "X-Amz-SignedHeaders=host",
    ] {
        assert!(query.contains(part), "{part} is not in {query}");
    }
    assert!(!query.contains(SECRET));
    let error = sources.fetch(&owner("hospital-B")).await.unwrap_err().to_string();
    assert!(error.contains("HTTP 404") && !error.contains("X-Amz") && !error.contains(SECRET), "{error}");
}

#[test]
fn only_the_three_kinds_of_address_are_taken() {
    let folder = Path::new("/nonexistent");
    for base in ["http://example.org/", "ftp://example.org/", "file://host/etc/", "data:text/plain,x"] {
        assert!(matches!(sources(base, folder, &Access::default()), Err(FetchError::Scheme(_))), "{base}");
    }
    assert!(sources("https://example.org/x", folder, &Access::default()).is_ok());
    let local = sources("file:///srv/sealed", folder, &Access::default()).unwrap();
    assert_eq!(local.folders(), [Path::new("/nonexistent/none"), Path::new("/srv/sealed")]);
    let error = sources("s3://studies/", folder, &Access::default()).unwrap_err();
    assert!(error.to_string().contains("AWS_ACCESS_KEY_ID"), "{error}");
}

#[tokio::test]
async fn an_endpoint_without_tls_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources("s3://studies/", folder.path(), &access(Some("http://store.example.org"))).unwrap();
    assert!(matches!(sources.fetch(&owner("a")).await, Err(FetchError::Scheme(_))));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = serve(Router::new().route("/a.tar", get(|| async { "internal" }))).await;
    let to = format!("{elsewhere}/a.tar");
    let moved = get(move || async move { (StatusCode::FOUND, [(header::LOCATION, to)]) });
    let base = serve(Router::new().route("/a.tar", moved)).await;
    let folder = tempfile::tempdir().unwrap();
    let error =
        sources(&base, folder.path(), &Access::default()).unwrap().fetch(&owner("a")).await.unwrap_err();
    assert!(error.to_string().contains("HTTP 302"), "{error}");
    assert!(files_in(&folder.path().join("fetched/a.fetched")).is_empty());
}

#[tokio::test]
async fn what_is_too_long_is_refused_whether_its_length_is_told_or_not() {
    let told = get(|| async { vec![0u8; 2000] });
    let endless =
        get(|| async { Body::from_stream(stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0u8; 500]))) });
    let base = serve(Router::new().route("/told.tar", told).route("/endless.tar", endless)).await;
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(&base, folder.path(), &Access::default()).unwrap().with_max_bytes(1999);
    for name in ["told", "endless"] {
        let error = sources.fetch(&owner(name)).await.unwrap_err();
        assert!(error.to_string().contains("longer than 1999 bytes"), "{error}");
        assert!(files_in(&folder.path().join(format!("fetched/{name}.fetched"))).is_empty(), "{name}");
    }
}

#[tokio::test]
async fn a_download_that_nobody_waits_for_leaves_nothing() {
    // Some bytes, then silence for good.
    let stuck = get(|| async {
        let first = stream::iter([Ok::<_, std::io::Error>(vec![1u8; 500])]);
        Body::from_stream(first.chain(stream::pending()))
    });
    let base = serve(Router::new().route("/a.tar", stuck)).await;
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(&base, folder.path(), &Access::default()).unwrap();
    let fetched = folder.path().join("fetched/a.fetched");
    let download = tokio::spawn(async move { sources.fetch(&owner("a")).await });
    while files_in(&fetched).is_empty() {
        assert!(!download.is_finished());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    download.abort();
    assert!(download.await.unwrap_err().is_cancelled());
    assert!(files_in(&fetched).is_empty(), "{:?}", files_in(&fetched));
}
