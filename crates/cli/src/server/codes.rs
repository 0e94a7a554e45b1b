//! Stable error codes, each with its HTTP status. A test compares them with the lists in docs/guide/server.md and
//! batch.md.

use axum::http::StatusCode;

macro_rules! codes {
    ($($status:ident: $($code:ident = $name:literal),+;)+) => {
        /// The kind of an error. Its name stays the same when the error's message is reworded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $($(#[doc = concat!("`", $name, "`")] $code,)+)+
        }

        impl Code {
            /// All codes, in the order in which they are listed here.
            pub const ALL: &[Self] = &[$($(Self::$code,)+)+];

            /// Returns the name that clients see.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $($(Self::$code => $name,)+)+
                }
            }

            /// Returns the HTTP status of an answer with this error.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self {
                    $($(Self::$code)|+ => StatusCode::$status,)+
                }
            }
        }
    };
}

codes! {
    BAD_REQUEST:
        InvalidJson = "invalid_json",
        InvalidValue = "invalid_value",
        UnsupportedField = "unsupported_field",
        ContextLengthExceeded = "context_length_exceeded",
        TextTooLong = "text_too_long",
        TooManyImages = "too_many_images",
        DocumentUnusable = "document_unusable",
        ImageInvalid = "image_invalid",
        ImageFormatUnsupported = "image_format_unsupported",
        ImageUrlInvalid = "image_url_invalid",
        ImageSourceNotAllowed = "image_source_not_allowed",
        ImageFetchFailed = "image_fetch_failed",
        ImageUnreadable = "image_unreadable",
        ResponseFormatUnusable = "response_format_unusable",
        InputChanged = "input_changed",
        BodyIncomplete = "body_incomplete",
        HostMissing = "host_missing",
        HeadInvalid = "head_invalid",
        TransferEncoding = "transfer_encoding";
    UNAUTHORIZED:
        InvalidApiKey = "invalid_api_key";
    FORBIDDEN:
        OriginNotAllowed = "origin_not_allowed";
    NOT_FOUND:
        RouteNotFound = "route_not_found",
        ModelNotFound = "model_not_found";
    METHOD_NOT_ALLOWED:
        MethodNotAllowed = "method_not_allowed";
    REQUEST_TIMEOUT:
        BodyTimeout = "body_timeout";
    PAYLOAD_TOO_LARGE:
        BodyTooLarge = "body_too_large",
        ImageTooLarge = "image_too_large",
        InputTooLarge = "input_too_large";
    URI_TOO_LONG:
        UriTooLong = "uri_too_long";
    UNSUPPORTED_MEDIA_TYPE:
        ContentType = "content_type",
        ContentEncoding = "content_encoding";
    MISDIRECTED_REQUEST:
        HostNotAllowed = "host_not_allowed";
    TOO_MANY_REQUESTS:
        QueueFull = "queue_full";
    REQUEST_HEADER_FIELDS_TOO_LARGE:
        HeadTooLarge = "head_too_large";
    INTERNAL_SERVER_ERROR:
        InternalError = "internal_error",
        EngineStopped = "engine_stopped";
    SERVICE_UNAVAILABLE:
        Loading = "loading",
        Draining = "draining",
        ConnectionsFull = "connections_full",
        OutOfMemory = "out_of_memory",
        DeviceFailed = "device_failed";
    GATEWAY_TIMEOUT:
        DeadlineExceeded = "deadline_exceeded";
    HTTP_VERSION_NOT_SUPPORTED:
        HttpVersion = "http_version";
}
