export default {
  preftune: {
    input: "openapi.json",
    output: { target: "orval.ts", client: "fetch", baseUrl: process.env.PREFTUNE_URL },
  },
};
