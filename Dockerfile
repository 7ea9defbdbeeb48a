FROM node:24-bookworm-slim AS deps
WORKDIR /app
COPY package.json package-lock.json ./
# No scripts of packages run while the image is built. The optional package is Node itself, which the image has.
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund && npm cache clean --force

FROM node:24-bookworm-slim
LABEL org.opencontainers.image.title="apixo-gateway" \
      org.opencontainers.image.description="Keeps the APIXO API key off the client: sessions, ownership, limits and credits in front of the APIXO API" \
      org.opencontainers.image.licenses="MIT"
WORKDIR /app
# The ledger's folder is the only one that is written at run time. A new volume takes over its owner, and its mode: whatever
# user the container is told to run as may have its ledger there, and nobody else is in it.
RUN mkdir data && chown node:node data && chmod 1777 data
ENV NODE_ENV=production \
    NODE_COMPILE_CACHE=/app/.compile-cache \
    HOST=0.0.0.0 \
    PORT=8080 \
    GATEWAY_STORE=sqlite:/app/data/gateway.db
# All code belongs to root and the gateway runs as node: it can not change it, also without --read-only.
COPY --from=deps /app/node_modules node_modules
COPY package.json LICENSE ./
COPY config config
COPY bin bin
COPY src src
# `docker exec` and `docker run` find the command as `npx` does elsewhere.
RUN ln -s /app/bin/apixo-gateway.mjs /usr/local/bin/apixo-gateway
# Fills the compile cache (code compiled, its types stripped): a start in half the time, with 25 MB less. The health
# check finds nobody, and the gateway refuses to start without settings (78): their files are loaded by then, and the two
# stores, of which a start loads only one, are loaded by name. What they say of it is kept back: it is no fault of the build.
# As the user of the run, because Node keeps one cache per user id; then root's, so that Node reads it and can not write.
RUN mkdir .compile-cache && chown node .compile-cache \
 && setpriv --reuid=node --regid=node --clear-groups sh -c '{ apixo-gateway health; node src/main.ts; } > /tmp/said 2>&1; [ $? = 78 ] \
    && for store in sqlite redis; do node -e "import(\"./src/adapters/$store/store.ts\")" || exit 1; done' \
 || { cat /tmp/said; exit 1; } \
 && rm /tmp/said && chown -R root:root .compile-cache && chmod -R a+rX .compile-cache
USER node
VOLUME /app/data
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s CMD ["apixo-gateway", "health"]
# Node is the first process itself, not below npm or a shell, and so gets SIGTERM.
CMD ["node", "src/main.ts"]
