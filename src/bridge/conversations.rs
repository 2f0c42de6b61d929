//! What users do with conversations, and who may.
