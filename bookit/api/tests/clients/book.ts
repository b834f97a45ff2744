// Registers a user who books and reviews a service, with openapi-fetch and types from
// openapi-typescript.
//
// Arguments: the URL of the server, the id of a service, and an admin's access token.

import createClient from "openapi-fetch";
import type { components, paths, webhooks } from "./schema";

declare const process: { argv: string[] };
const [url, service, adminToken] = process.argv.slice(2) as [string, string, string];
const as = (token: string) => ({ Authorization: `Bearer ${token}` });

function check(condition: unknown, what: unknown): asserts condition {
  if (!condition) throw new Error(JSON.stringify(what));
}

// These functions compile only if the type of an event determines the type of its `data`.
type Message<Type extends keyof webhooks> =
  webhooks[Type]["post"]["requestBody"]["content"]["application/json"];
export const startOf = (message: Message<"booking.created">): string => message.data.start_time;
export const ratingOf = (message: Message<"review.created">): number => message.data.rating;
export const describe = (event: components["schemas"]["Event"]): string =>
  event.type === "review.created" ? `${event.data.rating}` : event.data.start_time;

async function main(): Promise<void> {
  const client = createClient<paths>({ baseUrl: url });

  const registered = await client.POST("/auth/register", {
    body: { name: "Ana Silva", email: "ana.ts@example.com", password: "seven quiet otters" },
  });
  check(registered.data, registered.error);
  const ana = as(registered.data.access_token);

  const services = await client.GET("/services", { params: { query: { limit: 100 } } });
  check(services.data?.results.some((each) => each.id === service), services.error);
  const tomorrow = new Date(Date.now() + 86_400_000).toISOString();
  const free = await client.GET("/services/{id}/availability", {
    params: { path: { id: service }, query: { from: tomorrow } },
  });
  check(free.data?.times[0], free.error);

  const booked = await client.POST("/bookings", {
    headers: ana,
    body: { service_id: service, start_time: free.data.times[0].start_time },
  });
  check(booked.data?.status === "confirmed", booked.error);

  const early = await client.POST("/reviews", {
    headers: ana,
    body: { booking_id: booked.data.id, rating: 5 },
  });
  check(early.error?.code === "booking_not_completed", early.data);

  const completed = await client.PATCH("/bookings/{id}/status", {
    headers: as(adminToken),
    params: { path: { id: booked.data.id } },
    body: { status: "completed" },
  });
  check(completed.data, completed.error);

  const review = await client.POST("/reviews", {
    headers: ana,
    body: { booking_id: booked.data.id, rating: 5, comment: "Perfect." },
  });
  check(review.data?.rating === 5, review.error);

  const reviews = await client.GET("/reviews", {
    params: { query: { rating: 5, service_id: service } },
  });
  check(reviews.data?.results[0]?.comment === "Perfect.", reviews.error);
}

main();
