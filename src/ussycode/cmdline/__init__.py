"""The command language: lexing, parsing, help, completion; pure, and knows no command."""
