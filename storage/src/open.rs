//! Settings to a bucket.

use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;

use super::bucket::{Bucket, Cloud};
use super::error::{Result, StorageError};
use super::http::{Transport, TransportError};
use super::settings::{Location, Scheme, StorageSettings};
use super::urls::Urls;

impl StorageSettings {
    /// Opens the store. A cloud is not spoken to yet.
    ///
    /// # Errors
    /// A directory that cannot be made, a certificate, a proxy or an option that makes no sense.
    pub fn open(&self) -> Result<Bucket> {
        match &self.location {
            Location::Directory(path) => Bucket::directory(path),
            Location::Cloud { scheme, bucket, root } => self.open_cloud(*scheme, bucket, root),
        }
    }

    /// The way to the store over HTTP.
    ///
    /// # Errors
    /// A certificate or a proxy that cannot be read.
    pub fn transport(&self) -> Result<Transport, TransportError> {
        Transport::new(self.ca.as_deref(), &self.proxies, self.pace)
    }

    fn open_cloud(&self, scheme: Scheme, bucket: &str, root: &str) -> Result<Bucket> {
        let name = self.location.to_string();
        let failed = |source| StorageError::Store { store: name.clone(), verb: "open it", source };
        let transport = self.transport()?;
        let retry = self.retries.config();
        let urls = Urls { transport: transport.clone(), retries: self.retries };
        // Each cloud's store is a type of its own; beyond this macro they are the same.
        macro_rules! open {
            ($builder:ty, $with_name:ident) => {{
                let builder =
                    self.options.iter().fold(<$builder>::new(), |builder, (name, value)| match name.parse() {
                        Ok(key) => builder.with_config(key, value),
                        Err(_) => builder,
                    });
                let builder = builder.$with_name(bucket).with_retry(retry).with_http_connector(transport);
                let store = Arc::new(builder.build().map_err(failed)?);
                let uploads = (scheme == Scheme::S3).then_some(urls);
                // Azure's signature is for an object, and leaves no room for the number of a part.
                let signs_parts = scheme != Scheme::Az;
                let cloud = Cloud {
                    pages: store.clone(),
                    multipart: store.clone(),
                    signer: store.clone(),
                    signs_parts,
                    uploads,
                };
                Bucket::cloud(name.clone(), root, store, cloud)
            }};
        }
        match scheme {
            Scheme::S3 => open!(AmazonS3Builder, with_bucket_name),
            Scheme::Gs => open!(GoogleCloudStorageBuilder, with_bucket_name),
            Scheme::Az => open!(MicrosoftAzureBuilder, with_container_name),
        }
    }
}
