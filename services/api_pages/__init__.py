"""The pages of docs/api, made from the code: `make api-pages`. No service; runs where the code is worked on."""
