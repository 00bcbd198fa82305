//! The configuration language: INI text with scopes and references. What a text means is made in steps, each pure:
//! tokens with their places, a document, values for one node, a typed instance.
