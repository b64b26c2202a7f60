// Holds Kubernetes objects, JSON, one a line on standard input, against the schemas of the packages of package.json.
// Prints one line of JSON for each: the fault of the object, "" without one, or null where no package has its kind.
import { readFileSync } from "node:fs";

const PACKAGES = {
  "gateway.networking.k8s.io": "gateway-api",
  "networking.gke.io": "gke",
  "networking.istio.io": "istio",
  "monitoring.coreos.com": "prometheus-operator",
};

async function fault(object) {
  const [group, version] = object.apiVersion.split("/");
  if (!(group in PACKAGES)) return null;
  const models = await import(`@kubernetes-models/${PACKAGES[group]}/${group}/${version}/${object.kind}`);
  try {
    new models[object.kind](object).validate();
    return "";
  } catch (error) {
    return String(error.message);
  }
}

for (const line of readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  console.log(JSON.stringify(await fault(JSON.parse(line))));
}
