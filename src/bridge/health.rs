//! Whether the bridge can do its work now.

use sqlx::Connection as _;

use super::Bridge;

impl Bridge {
    /// Whether the store answers, within the time a request would wait for it.
    pub async fn is_store_ready(&self) -> bool {
        match self.pool().acquire().await {
            Ok(mut conn) => conn.ping().await.is_ok(),
            Err(_) => false,
        }
    }
}
