import { test } from "appwright";

test.only("was being worked on", async () => {});

test("fails meanwhile", async () => {
  throw new Error("and nobody knows");
});
