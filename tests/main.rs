//! What the product must answer, asked from outside. One module per question.
