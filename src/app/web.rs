//! interim
use std::sync::Arc;
pub(crate) struct App;
pub(crate) struct Settings;
impl App {
    pub(crate) fn new(_: Settings, _: [u8; 32]) -> Arc<Self> {
        Arc::new(Self)
    }
    pub(crate) fn reconfigure(&self, _: Settings) {}
    pub(crate) async fn ping(&self) {}
    pub(crate) async fn shutdown(&self) {}
}
pub(crate) fn router(_: Arc<App>) -> axum::Router {
    axum::Router::new().route("/health", axum::routing::get(|| async { "ok" }))
}
