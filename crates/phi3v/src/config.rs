//! config.json, generation_config.json, preprocessor_config.json.
