# The image of the program: docker build -t passkit .
# Features of the program: --build-arg FEATURES=otlp
# Other base images: --build-arg RUST_IMAGE=... --build-arg RUNTIME_IMAGE=...
# They need the same version of the C library: Debian 12 (bookworm) in both.
ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
RUN command -v make >/dev/null && command -v cc >/dev/null || \
    { apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make; }
WORKDIR /src
COPY . .
ARG FEATURES=""
RUN cargo build --locked --profile dist --package passkit-cli --features "$FEATURES"
# Folders for the files of the service. The user in the runtime image owns them.
RUN mkdir -p /state/passes /state/orders

FROM ${RUNTIME_IMAGE}
COPY --from=build /src/target/dist/passkit /usr/bin/passkit
COPY --from=build --chown=10001:10001 /state /var/lib/passkit
USER 10001:10001
WORKDIR /var/lib/passkit
VOLUME /var/lib/passkit
ENV PASSKIT_LISTEN=0.0.0.0:8080 \
    PASSKIT_METRICS=0.0.0.0:9090 \
    PASSKIT_PASSES=/var/lib/passkit/passes \
    PASSKIT_ORDERS=/var/lib/passkit/orders \
    PASSKIT_COPIES=/var/lib/passkit/copies
# The default store is ./passkit.db in the folder above. It is not set here, because a store can also be set by
# PASSKIT_STORE_FILE, and both together are an error.
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=5s CMD ["passkit", "healthcheck"]
ENTRYPOINT ["passkit"]
CMD ["serve"]
